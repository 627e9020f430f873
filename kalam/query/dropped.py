"""Tables that are dropped while a query reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kalam.errors import Internal, TableNotFound
from kalam.names import TableName
from kalam.storage.log.catalogue import Catalogue


@contextmanager
def unless_dropped(catalogue: Catalogue, names: Sequence[TableName]) -> Iterator[None]:
    """Say of a read that lost its files because a table was dropped meanwhile that it was dropped."""
    tables = {name: catalogue.tables.get(name) for name in names}
    try:
        yield
    except Internal as exc:
        for name, table in tables.items():
            now = catalogue.tables.get(name)
            if table is not None and (now is None or now.table_id != table.table_id):
                raise TableNotFound(f"table {name} was dropped while it was read") from exc
        raise
