"""The kinds of tables."""

from __future__ import annotations

import enum


class TableKind(enum.StrEnum):
    """What a table is for; decides where its rows live."""

    STREAM = "STREAM"
    SHARED = "SHARED"
    USER = "USER"
    FOREIGN = "FOREIGN"
    """A STREAM table over a stream that others made and that is only read."""
    VIEW = "VIEW"
    """A materialized view: a SHARED table that only Kalam writes."""
    QUERY = "QUERY"
    """A view: a SELECT that is run when it is read."""
    TEMPORARY = "TEMPORARY"
    """A table that a session made for itself, and that ends with it."""

    @property
    def per_user(self) -> bool:
        """Whether each user has a private copy of the rows."""
        return self is TableKind.USER

    @property
    def written(self) -> str:
        """The word for it in SQL."""
        return TableKind.STREAM.value if self is TableKind.FOREIGN else self.value


STORED_KINDS = (TableKind.SHARED, TableKind.USER, TableKind.VIEW)
"""The kinds of table whose rows are kept in the log and in Parquet files."""
