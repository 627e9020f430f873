"""The block that a session is in, as drivers watch it: its status byte, and what may be done in it.

Law: a block claims nothing that Kalam does not do. Each statement takes effect by itself; COMMIT is true, and ROLLBACK
behind a write says that the write stays.
"""

from __future__ import annotations

from typing import Final, Literal

from kalam_pg.errors import FEATURE, IN_FAILED_BLOCK, READ_ONLY, SqlError
from kalam_pg.session.commands import Begin, Command, Commit, Rollback, SetTransaction
from kalam_pg.session.own_tables import OwnWrite

Status = Literal["I", "T", "E"]
Warning_ = tuple[str, str]
"""A SQLSTATE and what is said."""

ROLLED_BACK: Final = (
    "25000",
    "what the block has written stays: each statement takes effect by itself, and ROLLBACK cannot take it back",
)
NO_BLOCK: Final = ("25P01", "there is no transaction in progress")
IN_BLOCK: Final = ("25001", "there is already a transaction in progress")


class Block:
    """Outside of a block, in one, or in one that has failed. ``strict`` refuses a block's second write."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.status: Status = "I"
        self.default_read_only = False
        self._read_only = self._wrote = False
        self._savepoints: list[str] = []

    @property
    def read_only(self) -> bool:
        """Whether nothing may be written now."""
        return self._read_only if self.status != "I" else self.default_read_only

    def check(self, command: Command | None) -> None:
        """Raise SqlError for what is not done in a block that has failed."""
        if self.status == "E" and not isinstance(command, Commit | Rollback):
            raise SqlError(
                IN_FAILED_BLOCK, "current transaction is aborted, commands ignored until end of transaction block"
            )

    def check_write(self, word: str, own: OwnWrite | None = None) -> None:
        """Raise SqlError where a statement that writes may not; what is the session's ``own`` can be taken back."""
        if self.read_only and own != "rows":
            raise SqlError(READ_ONLY, f"cannot execute {word} in a read-only transaction")
        if self._strict and self.status == "T" and self._wrote and own is None:
            raise SqlError(
                FEATURE,
                "a block writes once: a second statement could not be taken back together with the first",
                "COMMIT first, or start the server with pg_blocks = warn",
            )

    def wrote(self) -> None:
        """A statement has written."""
        self._wrote = True

    def fail(self) -> None:
        """A statement has failed."""
        if self.status == "T":
            self.status = "E"

    def begin(self, command: Begin) -> Warning_ | None:
        """BEGIN."""
        if self.status == "T":
            return IN_BLOCK
        self._enter(self.default_read_only if command.read_only is None else command.read_only)
        return None

    def end(self, command: Commit | Rollback) -> tuple[str, Warning_ | None]:
        """COMMIT or ROLLBACK: what is answered, and what is said besides."""
        if self.status == "I":
            return ("COMMIT" if isinstance(command, Commit) else "ROLLBACK"), NO_BLOCK
        failed = self.status == "E"
        rolled_back = failed or isinstance(command, Rollback)
        said = ROLLED_BACK if rolled_back and self._wrote else None
        read_only = self._read_only
        self.status = "I"
        if command.chain:
            self._enter(read_only)
        return ("ROLLBACK" if rolled_back else "COMMIT"), said

    def _enter(self, read_only: bool) -> None:
        self.status, self._read_only, self._wrote, self._savepoints = "T", read_only, False, []

    def save(self, name: str) -> None:
        """SAVEPOINT."""
        self._in_block("SAVEPOINT")
        self._savepoints.append(name)

    def release(self, name: str) -> None:
        """RELEASE."""
        self._in_block("RELEASE SAVEPOINT")
        self._back_to(name)
        self._savepoints.pop()

    def roll_back_to(self, name: str) -> Warning_ | None:
        """ROLLBACK TO: the block goes on."""
        self._in_block("ROLLBACK TO SAVEPOINT")
        self._back_to(name)
        self.status = "T"
        return ROLLED_BACK if self._wrote else None

    def set(self, command: SetTransaction) -> None:
        """SET TRANSACTION."""
        if command.read_only is None:
            return
        if command.session:
            self.default_read_only = command.read_only
        elif self.status != "I":
            self._read_only = command.read_only

    def _in_block(self, what: str) -> None:
        if self.status == "I":
            raise SqlError("25P01", f"{what} can only be used in transaction blocks")

    def _back_to(self, name: str) -> None:
        if name not in self._savepoints:
            raise SqlError("3B001", f'savepoint "{name}" does not exist')
        while self._savepoints[-1] != name:
            self._savepoints.pop()
