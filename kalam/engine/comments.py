"""COMMENT ON: what is said of tables and columns."""

from __future__ import annotations

from kalam.engine.session import Session
from kalam.engine.upserts import existing_column
from kalam.query.queries import resolve
from kalam.query.results import Result
from kalam.sql.text.statements import CommentOn
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.comments import OF_TABLE


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
