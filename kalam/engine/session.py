"""Who asks, where a request's statements look for names, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kalam.access.identity import ADMINISTRATOR, DEFAULT_USER, Identity
from kalam.query.running import RunningQuery

__all__ = ["ADMINISTRATOR", "DEFAULT_USER", "Identity", "Request", "Session"]


class Session(msgspec.Struct, frozen=True, gc=False):
    """Who asks, in which default namespace, and how the answer is shown.

    ``postgresql_names``: columns without a name are called as in PostgreSQL. ``bigint_as_text``: JSON has BIGINT values
    as text, for clients whose numbers are exact up to 2^53 only.
    """

    identity: Identity = ADMINISTRATOR
    namespace: str | None = None
    postgresql_names: bool = False
    bigint_as_text: bool = False

    @property
    def user(self) -> str:
        """The name by which the user owns copies of USER tables."""
        return self.identity.user

    @property
    def administers(self) -> bool:
        """Whether the caller may see and end what belongs to others: everybody may, while authentication is off."""
        return True

    def may_end(self, running: RunningQuery) -> bool:
        """Whether the caller may cancel a query."""
        return running.user == self.user or self.administers


class Request(msgspec.Struct, frozen=True):
    """A statement's surroundings: who asks, and the values of its parameters."""

    session: Session
    parameters: Sequence[Any]
