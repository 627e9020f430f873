"""What a connection begins with: TLS or not, a request to cancel, or a startup with its parameters."""

from __future__ import annotations

from typing import Final

import msgspec

from kalam.tls import Certificates
from kalam_pg.errors import FEATURE, PROTOCOL, SqlError
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Channel
from kalam_pg.wire.payload import Payload

VERSION: Final = 3 << 16
SSL_REQUEST: Final = (1234 << 16) | 5679
GSSENC_REQUEST: Final = (1234 << 16) | 5680
CANCEL_REQUEST: Final = (1234 << 16) | 5678
ATTEMPTS_MAX: Final = 3
"""Requests for encryption before the startup: one of each kind is sense."""


class Cancel(msgspec.Struct, frozen=True):
    """A request to stop what a session runs."""

    pid: int
    secret: int


class Startup(msgspec.Struct, frozen=True):
    """Who wants in, and with which settings."""

    user: str
    database: str
    settings: dict[str, str]


async def begin(channel: Channel, certificates: Certificates | None) -> Startup | Cancel:
    """Read on until it is known what a connection wants; raises SqlError."""
    for _ in range(ATTEMPTS_MAX):
        payload = Payload((await channel.read()).data)
        code = payload.int32()
        if code == SSL_REQUEST:
            if certificates is not None and not channel.encrypted:
                await channel.start_tls(certificates.context)
            else:
                channel.write(b"N")
                channel.begin_again()
        elif code == GSSENC_REQUEST:
            channel.write(b"N")
            channel.begin_again()
        elif code == CANCEL_REQUEST:
            return Cancel(payload.int32(), payload.uint32())
        else:
            found = _startup(channel, code, payload)
            channel.go_on()
            return found
    raise SqlError(PROTOCOL, "a startup has to follow the requests for encryption")


def _startup(channel: Channel, version: int, payload: Payload) -> Startup:
    if version >> 16 != 3:
        raise SqlError(
            FEATURE, f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: server supports 3.0"
        )
    given: dict[str, str] = {}
    while name := payload.text():
        given[name] = payload.text()
    payload.end()
    user = given.pop("user", "")
    if not user:
        raise SqlError("28000", "no PostgreSQL user name specified in startup packet")
    if given.pop("replication", "false").lower() not in ("false", "off", "no", "0"):
        raise SqlError(FEATURE, "there is no replication by this protocol", "changes are on the table's NATS subjects")
    unknown = [name for name in given if name.startswith("_pq_.")]
    if version != VERSION or unknown:
        channel.write(messages.negotiate(unknown))
    database = given.pop("database", "") or user
    settings = _options(given.pop("options", ""))
    settings |= {name: value for name, value in given.items() if name not in unknown}
    return Startup(user, database, settings)


def _options(written: str) -> dict[str, str]:
    """The settings in ``options``: ``-c name=value``, ``-cname=value`` or ``--name=value``."""
    words = iter(_words(written))
    found: dict[str, str] = {}
    for word in words:
        pair = next(words, "") if word == "-c" else word[2:] if word.startswith(("-c", "--")) else None
        if pair is None or "=" not in pair:
            raise SqlError("42601", f"invalid command-line argument for server process: {word[:40]}")
        name, _, value = pair.partition("=")
        found[name.replace("-", "_")] = value
    return found


def _words(written: str) -> list[str]:
    """The words of ``options``: a backslash keeps what is behind it, a blank too."""
    words, word, escaped = [], "", False
    for character in written:
        if escaped or not (character.isspace() or character == "\\"):
            word, escaped = word + character, False
        elif character == "\\":
            escaped = True
        elif word:
            words.append(word)
            word = ""
    return [*words, word] if word else words
