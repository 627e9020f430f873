"""Where else a server is found that is known by NATS or by HTTP: each of its doors tells of the other."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client

from kalam.credentials import Credentials
from kalam.errors import BrokerUnavailable, InvalidOption, Unauthenticated, error_class
from kalam.tasks import heeding
from kalam.urls import http_connection, redacted

OWN_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared only


def info_subject(prefix: str, user: str) -> str:
    """Where a user asks which server serves these subjects."""
    return f"{prefix}.api.{user}.info"


async def ask_identity(client: Client, prefix: str, user: str, timeout_s: float) -> dict[str, str]:
    """What the server with these subjects tells of itself: ``id``, ``http_url``, …; raises as nats-py."""
    answer = await heeding(client.request(info_subject(prefix, user), b"", timeout=timeout_s))
    return identity_in(answer.data)


def identity_in(answer: bytes) -> dict[str, str]:
    """The same out of the answer; raises LookupError and MsgspecError for what is none."""
    told: dict[str, Any] = msgspec.json.decode(answer, type=dict[str, Any])
    identity: dict[str, str] = told["metadata"]
    return identity


def found_by_http(http_url: str, login: Credentials, timeout_s: float) -> tuple[str, str]:
    """Where the server that answers HTTP at a URL is found in NATS, and who logs in there; waits.

    Raises BrokerUnavailable, InvalidOption for what is no URL, and Unauthenticated where it lets nobody in.
    """
    told = _get(http_url, "/readyz", login, timeout_s)
    identity = told.get("server")
    if not identity:
        raise Unauthenticated(
            f"{redacted(http_url)} lets in only who logs in", hint="connect(…, user=…, password=…), or token=…"
        )
    url = identity.get("nats_url")
    if not url:
        raise BrokerUnavailable(
            f"{redacted(http_url)} does not say where it is found in NATS", hint='say it: connect("nats://…")'
        )
    named = _get(http_url, "/v1/me", login, timeout_s)["user"] if login.is_nameless else login.name
    return seen_from(http_url, url), named


def seen_from(asked: str, told: str) -> str:
    """The address that a server told of itself, as it is seen from where it was asked."""
    host, parts = urlsplit(asked).hostname, urlsplit(told)
    if host is None or host in OWN_HOSTS or parts.hostname not in OWN_HOSTS:
        return told
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=shown if parts.port is None else f"{shown}:{parts.port}").geturl()


def _get(url: str, path: str, login: Credentials, timeout_s: float) -> dict[str, Any]:
    shown = redacted(url)
    try:
        connection, prefix = http_connection(url, timeout_s)
    except ValueError as exc:
        raise InvalidOption(str(exc)) from exc
    try:
        connection.request("GET", prefix + path, None, login.headers())
        answer = connection.getresponse()
        told = msgspec.json.decode(answer.read(), type=dict[str, Any])
    except (OSError, HTTPException) as exc:
        raise BrokerUnavailable(f"no answer from {shown}: {exc or type(exc).__name__}") from exc
    except msgspec.MsgspecError as exc:
        raise BrokerUnavailable(f"{shown} does not look like a Kalam server") from exc
    finally:
        connection.close()
    if "code" in told:
        fields = {"hint": told["hint"]} if "hint" in told else {}
        raise error_class(told["code"])(str(told.get("detail")), **fields)
    return told
