"""Which views read a table: what they need is not dropped or changed under them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from kalam.errors import TableInUse
from kalam.schema import SelectOptions, Table
from kalam.sql.tables.spelling import full_name
from kalam.sql.text.edits import Edits
from kalam.storage.log.catalogue import Catalogue

Told = Callable[[str, Sequence[Table]], str]
"""Says to somebody, with a noun, which views there are."""


def selects_of(table: Table, catalogue: Catalogue, column: str | None = None) -> list[Table]:
    """The views whose SELECT names a table, or may name a column of it."""
    found = []
    for view in catalogue.tables.values():
        options = view.options
        if not isinstance(options, SelectOptions) or all(use.table_id != table.table_id for use in options.uses):
            continue
        if column is None or column in options.words or column in options.given:
            found.append(view)
    return found


def check_unselected(
    table: Table, catalogue: Catalogue, told: Told, dropped: Collection[int] = (), column: str | None = None
) -> None:
    """Raise TableInUse while views read a table, or a column of it, other than those that are dropped with it.

    ``told`` says which they are to whoever asked.
    """
    reading = [view for view in selects_of(table, catalogue, column) if view.table_id not in dropped]
    if reading:
        what = f"table {table.name}" if column is None else f"column {column} of table {table.name}"
        hint = "DROP VIEW comes first" + ("" if column is not None else ", or DROP … CASCADE")
        raise TableInUse(f"{what} is read by {told('view', reading)}", hint=hint)


def read_through(table: Table, catalogue: Catalogue) -> Iterator[Table]:
    """A table, or of a view what it reads, through other views too."""
    return (each for each in _through(table, catalogue) if not isinstance(each.options, SelectOptions))


def views_through(table: Table, catalogue: Catalogue) -> Iterator[Table]:
    """A view, and the views that it reads; none of a table."""
    return (each for each in _through(table, catalogue) if isinstance(each.options, SelectOptions))


def _through(table: Table, catalogue: Catalogue) -> Iterator[Table]:
    ahead = [table]
    while ahead:
        one = ahead.pop()
        yield one
        if isinstance(one.options, SelectOptions):
            found = (catalogue.by_id.get(use.table_id) for use in one.options.uses)
            ahead += [each for each in found if each is not None]


def present_text(options: SelectOptions, catalogue: Catalogue) -> str:
    """The text of a view with the names that its tables have now, in full."""
    edits = Edits(options.query)
    for use in options.uses:
        table = catalogue.by_id.get(use.table_id)
        if table is not None:
            alias = "" if use.aliased or table.name.table == use.table else f' AS "{use.table}"'
            edits.replace((use.start, use.end), f"{full_name(table.name)}{alias}")
    return edits.whole
