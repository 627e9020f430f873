"""What the writer's thread carries out: units of work, and what goes along with one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class WriteTask(Protocol):
    """A unit of work in the writer's thread. ``cost`` counts towards the bound of a group, in rows."""

    cost: int

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Make the changes and return what the future gets.

        A KalamError refuses this task alone: it is raised before anything was changed, in the database and in memory.
        """

    def committed(self) -> None:
        """Called in the writer's thread after the commit and before any future is resolved; must not raise."""

    def rolled_back(self) -> None:
        """Undo what ``apply`` changed in memory: the transaction failed."""

    def announcements(self) -> list[Any]:
        """What the loop's thread is told after the commit, before any future of the group is resolved."""


class Work:
    """A task made of one function, isolated by a savepoint."""

    cost = 1

    def __init__(
        self, function: Callable[[sqlite3.Connection], Any], committed: Callable[[], None] | None = None
    ) -> None:
        self._function = function
        self._committed = committed

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Run the function inside a savepoint."""
        conn.execute("SAVEPOINT work")
        try:
            result = self._function(conn)
        except BaseException:
            if conn.in_transaction:  # SQLite itself rolls back the whole transaction when the disk is full
                conn.execute("ROLLBACK TO work")
                conn.execute("RELEASE work")
            raise
        conn.execute("RELEASE work")
        return result

    def committed(self) -> None:
        """Tell whoever asked to be told."""
        if self._committed is not None:
            self._committed()

    def rolled_back(self) -> None:
        """Nothing to undo: the function changed the database only."""

    def announcements(self) -> list[Any]:
        """Nothing: a function tells its caller by its result."""
        return []


class Alongside:
    """What is to be written in the transaction of the first task of a context that changes something.

    ``written`` says whether that has happened. Tasks that only look, are refused or fail take nothing along.
    """

    def __init__(self, write: Callable[[sqlite3.Connection], None]) -> None:
        self.write, self.written = write, False
        self.free = True
        """Whether the next task may take it; a task that has it gives it back where it does not write it."""
        self.over = False


_ALONGSIDE: ContextVar[Alongside | None] = ContextVar("alongside", default=None)


@contextmanager
def alongside(write: Callable[[sqlite3.Connection], None]) -> Iterator[Alongside]:
    """Have something written together with what the block changes first."""
    along = Alongside(write)
    token = _ALONGSIDE.set(along)
    try:
        yield along
    finally:
        along.over = True  # a task that outlives the block takes nothing any more
        _ALONGSIDE.reset(token)


def with_alongside(task: WriteTask) -> WriteTask:
    """The task, together with what goes along with it in this context."""
    along = _ALONGSIDE.get()
    if along is None or along.over or not along.free:
        return task
    along.free = False
    return _Together(task, along)


class _Together:
    """A task, and behind it what goes along with it."""

    def __init__(self, task: WriteTask, along: Alongside) -> None:
        self._task, self._along, self._wrote = task, along, False
        self.cost = task.cost

    def apply(self, conn: sqlite3.Connection) -> Any:
        """Carry out the task, and what goes along where it has changed something."""
        before = conn.total_changes
        try:
            result = self._task.apply(conn)
        except BaseException:
            self._along.free = True
            raise
        self._wrote = conn.total_changes != before
        if self._wrote:
            self._along.write(conn)
        return result

    def committed(self) -> None:
        """Tell both."""
        self._along.written, self._along.free = self._wrote, not self._wrote
        self._task.committed()

    def rolled_back(self) -> None:
        """Undo the task's; what goes along has nothing in memory."""
        self._along.free = True
        self._task.rolled_back()

    def announcements(self) -> list[Any]:
        """The task's."""
        return self._task.announcements()
