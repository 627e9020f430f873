"""COMMENT ON, and SHOW COLUMNS, which shows what is said."""

from __future__ import annotations

import pyarrow as pa

from kalam.engine.session import Session
from kalam.engine.upserts import existing_column
from kalam.query.queries import resolve
from kalam.query.results import Result, list_result
from kalam.sql.text.statements import CommentOn, TableRef
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.comments import OF_TABLE

COLUMN_FIELDS = (
    ("column_name", pa.string()),
    ("data_type", pa.string()),
    ("is_nullable", pa.bool_()),
    ("column_default", pa.string()),
    ("is_primary_key", pa.bool_()),
    ("comment", pa.string()),
)


class CommentStatements:
    """Carries them out; who may has been asked."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def comment(self, statement: CommentOn, session: Session) -> Result:
        """COMMENT ON TABLE or COLUMN."""
        table = self._catalogue.table(resolve(statement.ref, session.namespace))
        column = None if statement.column is None else existing_column(table, statement.column)
        named = str(table.name) if column is None else f"{table.name}.{column.name}"
        await self._catalogue.comments.put(table, OF_TABLE if column is None else column.column_id, statement.comment)
        return Result(message=f"{named}: comment {'removed' if statement.comment is None else 'set'}")

    def show_columns(self, ref: TableRef, session: Session) -> Result:
        """SHOW COLUMNS FROM a table: those that it was declared with."""
        table = self._catalogue.table(resolve(ref, session.namespace))
        rows = [
            (
                column.name,
                column.type.declaration,
                column.nullable,
                None if column.default is None else str(column.default),
                column.name in table.key,
                self._catalogue.comments.of(table, column.column_id),
            )
            for column in table.declared_columns
        ]
        return list_result(COLUMN_FIELDS, rows)
