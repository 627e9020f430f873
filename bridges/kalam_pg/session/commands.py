"""The statements that a session carries out itself, as values; everything else is the engine's.

What PostgreSQL has and Kalam has not is a ``Refused`` with what to do instead.
"""

from __future__ import annotations

import msgspec


class Begin(msgspec.Struct, frozen=True):
    """BEGIN; ``read_only`` is None where it does not say."""

    read_only: bool | None = None
    tag: str = "BEGIN"


class Commit(msgspec.Struct, frozen=True):
    """COMMIT; ``chain`` begins the next block at once."""

    chain: bool = False


class Rollback(msgspec.Struct, frozen=True):
    """ROLLBACK, or with ``savepoint`` only to there."""

    chain: bool = False
    savepoint: str | None = None


class Savepoint(msgspec.Struct, frozen=True):
    """SAVEPOINT."""

    name: str


class Release(msgspec.Struct, frozen=True):
    """RELEASE SAVEPOINT."""

    name: str


class Set(msgspec.Struct, frozen=True):
    """SET; ``value`` is None for DEFAULT, ``local`` ends with the block."""

    name: str
    value: str | None
    local: bool = False


class SetTransaction(msgspec.Struct, frozen=True):
    """SET TRANSACTION, or for all that follow SET SESSION CHARACTERISTICS."""

    read_only: bool | None = None
    session: bool = False


class Show(msgspec.Struct, frozen=True):
    """SHOW of a setting; ``name`` is ``all`` for all."""

    name: str


class Reset(msgspec.Struct, frozen=True):
    """RESET; ``name`` is None for ALL."""

    name: str | None


class Discard(msgspec.Struct, frozen=True):
    """DISCARD."""

    what: str


class Deallocate(msgspec.Struct, frozen=True):
    """DEALLOCATE; ``name`` is None for ALL."""

    name: str | None


class Declare(msgspec.Struct, frozen=True):
    """DECLARE CURSOR."""

    name: str
    query: str
    binary: bool = False
    hold: bool = False


class Fetch(msgspec.Struct, frozen=True):
    """FETCH, or MOVE; ``count`` is None for all that is left."""

    name: str
    count: int | None
    move: bool = False


class CloseCursor(msgspec.Struct, frozen=True):
    """CLOSE; ``name`` is None for ALL."""

    name: str | None


class Listen(msgspec.Struct, frozen=True):
    """LISTEN."""

    channel: str


class Unlisten(msgspec.Struct, frozen=True):
    """UNLISTEN; ``channel`` is None for all."""

    channel: str | None


class Use(msgspec.Struct, frozen=True):
    """USE: the default namespace of what follows."""

    namespace: str


class Copy(msgspec.Struct, frozen=True):
    """COPY, whose text ``session.copy_options`` reads."""

    text: str


class Refused(msgspec.Struct, frozen=True):
    """What is understood and not done."""

    detail: str
    hint: str | None = None


Command = (
    Begin
    | Commit
    | Rollback
    | Savepoint
    | Release
    | Set
    | SetTransaction
    | Show
    | Reset
    | Discard
    | Deallocate
    | Declare
    | Fetch
    | CloseCursor
    | Listen
    | Unlisten
    | Use
    | Copy
    | Refused
)
