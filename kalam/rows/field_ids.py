"""Which column a name in a Parquet file means, for readers that know columns by number as Iceberg does.

The law: a column's field id is its ``column_id``. Files carry no ids as long as no name of the table has ever meant two
columns, for then a mapping of names to ids says the same. From the ALTER on that gives a name to a second column, files
carry ids, and the mapping keeps the name for the first: it is what older files mean by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from kalam.rows.versions import History
from kalam.schema import SEQ, UPDATED, Column

SYSTEM_IDS: Mapping[str, int] = {UPDATED: 1_000_000_001, SEQ: 1_000_000_002}
"""The field ids of what every file has beside the columns."""
FIELD_ID = b"PARQUET:field_id"
"""The metadata of an Arrow field that its file carries as its id."""


def name_owners(history: History) -> tuple[dict[str, int], int | None]:
    """The column id that owns each name, and the first schema version in which a name means a second column.

    None where no name ever did.
    """
    owners: dict[str, int] = {}
    shared_from: int | None = None
    for version in sorted(history):
        for column in history[version]:
            if owners.setdefault(column.name, column.column_id) != column.column_id and shared_from is None:
                shared_from = version
    return owners, shared_from


def carries_ids(history: History, schema_version: int) -> bool:
    """Whether files that are written under a schema version carry field ids."""
    shared_from = name_owners(history)[1]
    return shared_from is not None and schema_version >= shared_from


def with_field_ids(schema: pa.Schema, columns: Sequence[Column]) -> pa.Schema:
    """A file's schema with the id of each field."""
    ids = {**SYSTEM_IDS, **{column.name: column.column_id for column in columns}}
    return pa.schema([field.with_metadata({FIELD_ID: str(ids[field.name])}) for field in schema])
