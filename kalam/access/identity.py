"""Who asks, as a value: doors make one of what their protocol tells."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kalam.access.model import ADMIN
from kalam.names import check_user

DEFAULT_USER = ADMIN
"""Who asks where a request names nobody and authentication is off."""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who asks. Raises InvalidName.

    ``user`` is on whose rows a statement works and what ``CURRENT_USER()`` says; ``actor`` whose grants count where an
    administrator acts for another. ``how`` the login was proven (``password``, ``token``, ``session``; None where
    authentication is off), by which ``credential`` (the id of the token or session), until when, and from which
    ``address``.
    """

    user: str = DEFAULT_USER
    actor: str | None = None
    how: str | None = None
    credential: str = ""
    ends_at: datetime | None = None
    address: str = ""

    def __post_init__(self) -> None:
        check_user(self.user)

    @property
    def rights_of(self) -> str:
        """The user whose grants count."""
        return self.user if self.actor is None else self.actor


ADMINISTRATOR = Identity()
"""The server itself, and whoever asks while authentication is off and names nobody."""
