"""What is looked at in settings before a server runs: what is doubtful, and who could reach it unasked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from ipaddress import ip_address

from kalam.errors import InvalidOption
from kalam.settings import NO_SETTINGS, PREFIX, Settings


def doubts(settings: Settings, environment: Iterable[str]) -> Iterator[tuple[str, dict[str, str | None]]]:
    """What should be looked at before a server runs: a message and its fields for each.

    Variables that look like settings and are none, with the one that was probably meant; and addresses at which other
    machines can connect.
    """
    known = [f"{PREFIX}{name}".upper() for name in Settings.model_fields]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.upper() not in (*known, *NO_SETTINGS):
            meant = next(iter(get_close_matches(name.upper(), known, 1, 0.8)), None)
            yield "an environment variable is no setting", {"variable": name, "meant": meant}
    if settings.accept_loss:
        yield "accept_loss is meant for one start; with it no start tells what was lost", {"setting": "accept_loss"}
    if settings.insecure:
        for name, host in exposed(settings).items():
            yield "other machines can connect, and there is no authentication", {"setting": name, "host": host}


def exposed(settings: Settings) -> dict[str, str]:
    """The addresses at which other machines can connect though nobody is asked who they are, by their settings."""
    hosts = {"http_host": settings.http_host}
    if settings.pg_port is not None:
        hosts["pg_host"] = settings.pg_host
    if settings.nats_url is None and settings.nats_context is None:
        hosts["nats_host"] = settings.nats_host
    return {name: host for name, host in hosts.items() if settings.auth == "off" and not is_loopback(host)}


def check_exposure(settings: Settings) -> None:
    """Raise InvalidOption for a server that would take anybody from anywhere, unless that is meant.

    That pages of every site may drive it is meant by nobody: each visitor's browser could, from the visitor's machine.
    """
    if settings.auth == "off" and "*" in settings.cors_origins:
        raise InvalidOption(
            "cors_origins is *, so a page of any site could use the server, and nobody would be asked who they are",
            hint="name the origins, or ask by --auth on",
        )
    for name, host in () if settings.insecure else exposed(settings).items():
        raise InvalidOption(
            f"other machines could connect ({name} is {host}), and nobody would be asked who they are",
            hint="--auth on asks; --insecure starts without",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
