"""Who asks, where a request's statements look for names, and how the answer is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kalam.names import check_user

DEFAULT_USER = "admin"
"""Who asks where a request names nobody."""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who asks: a door makes one of what its protocol tells, in one place. Raises InvalidName.

    What somebody may do is asked here and nowhere else. While authentication is off, everybody may do everything.
    """

    user: str = DEFAULT_USER

    def __post_init__(self) -> None:
        check_user(self.user)

    @property
    def administers(self) -> bool:
        """Whether the user may see and end what belongs to others."""
        return True

    def may_end(self, owner: str) -> bool:
        """Whether the user may cancel what a user has started."""
        return self.user == owner or self.administers


ADMINISTRATOR = Identity()


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


class Request(msgspec.Struct, frozen=True):
    """A statement's surroundings: who asks, and the values of its parameters."""

    session: Session
    parameters: Sequence[Any]
