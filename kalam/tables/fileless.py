"""The upkeep of tables that have no files in the data directory, whatever holds their rows."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from kalam.schema import Table


class FilelessUpkeep:
    """What an Upkeep does about files and for changes under way, where there is nothing to do."""

    async def settle(self, table: Table) -> None:
        """Nothing of it is on its way to the disk."""

    def altering(self, table: Table) -> AbstractAsyncContextManager[object]:
        """Nothing has to hold still."""
        return nullcontext()

    def dropping(self, table: Table, reason: str) -> AbstractAsyncContextManager[object]:
        """It has no files."""
        return nullcontext()

    async def garbage(self, table: Table) -> list[str]:
        """It has no files."""
        return []
