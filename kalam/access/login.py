"""A login, as a value."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

How = Literal["password", "token", "session", "nkey"]


class Login(msgspec.Struct, frozen=True):
    """Somebody who has proven who they are.

    ``credential`` is the id of the token or session, "" for a password. ``ends_at`` is when the login ends by itself,
    None for never. ``password_us`` is when the password that was proven was set, in microseconds since 1970.
    """

    user: str
    how: How
    credential: str = ""
    ends_at: datetime | None = None
    password_us: int = 0
