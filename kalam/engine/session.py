"""Who asks, and in which namespace; and what the engine says of its health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

DEFAULT_USER = "admin"


class Session(msgspec.Struct, frozen=True):
    """Who asks, in which namespace, and how the answer is shown.

    ``postgresql_names``: columns without a name are called as in PostgreSQL. ``bigint_as_text``: JSON has BIGINT values
    as text, for clients whose numbers are exact up to 2^53 only.
    """

    user: str = DEFAULT_USER
    namespace: str | None = None
    postgresql_names: bool = False
    bigint_as_text: bool = False

    @property
    def administers(self) -> bool:
        """Whether the user may see and end what belongs to others: everybody, while authentication is off."""
        return True

    def may_end(self, owner: str) -> bool:
        """Whether the user may cancel what a user has started."""
        return self.user == owner or self.administers


class Request(msgspec.Struct, frozen=True):
    """A statement's surroundings: who asks, and the values of its parameters."""

    session: Session
    parameters: Sequence[Any]


class Check(msgspec.Struct, frozen=True):
    """One thing that has to be well for the server to be ready."""

    name: str
    ok: bool
    detail: str = ""
