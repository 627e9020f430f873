"""The statements that change rows, each to the part that carries it out."""

from __future__ import annotations

from typing import assert_never

import msgspec

from kalam.engine.changes import Changes
from kalam.engine.inserts import Inserts
from kalam.engine.merge_statements import MergeStatements
from kalam.engine.session import Request
from kalam.engine.temporary import TemporaryStatements
from kalam.errors import Unsupported
from kalam.query.results import Result
from kalam.sql.text.statements import Delete, Insert, Merge, TableRef, Update
from kalam.storage.log.catalogue import Catalogue


class RowStatements(msgspec.Struct, frozen=True):
    """Carries them out, on the tables of the catalogue and on temporary ones."""

    catalogue: Catalogue
    changes: Changes
    merging: MergeStatements
    temporary: TemporaryStatements
    inserts: Inserts

    def is_temporary(self, ref: TableRef) -> bool:
        """Whether a reference, as it is written out, is to a temporary table."""
        return ref.namespace is not None and self.catalogue.temporary.has(ref.namespace)

    async def change(self, statement: Insert | Update | Delete | Merge, request: Request) -> Result:
        """Carry one out."""
        if self.is_temporary(statement.ref):
            return await self._change_temporary(statement, request)
        match statement:
            case Insert():
                result = await self.changes.insert(statement, request)
                self.inserts.accepted_rows += result.row_count
                return result
            case Update():
                return await self.changes.update(statement, request)
            case Delete():
                return await self.changes.delete(statement, request)
            case Merge():
                return await self.merging.merge(statement, request)
            case other:
                assert_never(other)

    async def _change_temporary(self, statement: Insert | Update | Delete | Merge, request: Request) -> Result:
        match statement:
            case Insert():
                return await self.temporary.insert(statement, request)
            case Update():
                return await self.temporary.update(statement, request)
            case Delete():
                return await self.temporary.delete(statement, request)
            case Merge():
                hint = "UPDATE … FROM and INSERT … SELECT do it"
                raise Unsupported("MERGE changes ordinary tables and no temporary ones", hint=hint)
            case other:
                assert_never(other)
