"""How long a body may be: refused by its Content-Length before a byte of it comes, or as soon as it is longer.

This holds on every route, also where no body is read.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.types import Message, Receive, Scope

from kalam.errors import TooLarge
from kalam.settings import Settings

ROWS_PATHS: Final = "/v1/tables/"


class BodyBounds(msgspec.Struct, frozen=True):
    """The bounds: of rows in bulk, and of everything else."""

    statement_bytes_max: int
    rows_body_bytes_max: int

    @classmethod
    def of(cls, settings: Settings) -> BodyBounds:
        """Those that are set."""
        return cls(settings.statement_bytes_max, settings.rows_body_bytes_max)

    def bounded(self, scope: Scope, receive: Receive) -> Receive:
        """What gives the body of a request and raises TooLarge when it is too long; raises it now if that is known."""
        rows = scope["path"].startswith(ROWS_PATHS)
        setting = "rows_body_bytes_max" if rows else "statement_bytes_max"
        bytes_max = self.rows_body_bytes_max if rows else self.statement_bytes_max
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(declared) > bytes_max:
            raise TooLarge(
                f"the body has {int(declared)} bytes; at most {bytes_max} are taken (setting {setting})",
                stored=0 if rows else None,
            )
        size = 0

        async def bounded_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > bytes_max:
                raise TooLarge(f"the body exceeds {bytes_max} bytes (setting {setting})")
            return message

        return bounded_receive
