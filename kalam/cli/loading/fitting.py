"""The rows of a file as rows of the table: columns by their names, and what stands for true and false.

Columns of Arrow are renamed as they are. A row of JSON is opened only if there is something to change in it, which is
known from what was asked and from the names in the first rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalam.cli.loading.names import NameMatch
from kalam.rows.inference import FALSE_WORDS, TRUE_WORDS

if TYPE_CHECKING:  # pyarrow takes a while and is needed for its formats alone
    import pyarrow as pa

ROWS_LOOKED_AT: Final = 1_000
BOOLEAN: Final = "BOOLEAN"


class Fitting:
    """Fits rows. ``booleans`` says that yes, no, t, f, 1 and 0 are truth values in columns that have such."""

    def __init__(self, match: NameMatch, *, booleans: bool = False) -> None:
        self.match = match
        self._booleans = booleans
        self._found: dict[tuple[str, ...], dict[str, str]] = {}
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._encode = msgspec.json.Encoder().encode
        self._rows = 0
        self.is_idle = False
        """Rows of JSON need nothing, as far as was looked."""
        self._opens = bool(match.mapped or match.chosen is not None or (booleans and self._has_truths()))

    def _has_truths(self) -> bool:
        return BOOLEAN in (self.match.columns or {}).values()

    def _columns(self, names: tuple[str, ...], *, all_named: bool) -> dict[str, str]:
        found = self._found.get(names)
        if found is None:
            found = self._found[names] = self.match.of(names, all_named=all_named)
        return found

    def table(self, table: pa.Table) -> pa.Table:
        """Columns of Arrow."""
        names = tuple(table.column_names)
        found = self._columns(names, all_named=True)
        if list(found.items()) != [(name, name) for name in names]:
            table = table.select(list(found)).rename_columns(list(found.values()))
        if self._booleans and self.match.columns:
            for place, name in enumerate(table.column_names):
                if self.match.columns.get(name) == BOOLEAN:
                    table = table.set_column(place, name, truths(table.column(name)))
        return table

    def row(self, row: bytes) -> bytes:
        """A row of JSON."""
        if self.is_idle:
            return row
        if not self._opens:
            self._rows += 1
            self.is_idle = self._rows >= ROWS_LOOKED_AT
        try:
            members: dict[str, Any] = self._members.decode(row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # the server says what is wrong with it
            return row
        found = self._columns(tuple(members), all_named=False)
        if not self._opens:
            if all(name == column for name, column in found.items()):
                return row
            self._opens, self.is_idle = True, False
        fitted = {column: members[name] for name, column in found.items()}
        if self._booleans and self.match.columns:
            for column, value in fitted.items():
                if self.match.columns.get(column) == BOOLEAN:
                    fitted[column] = _RAW_TRUTHS.get(bytes(value).lower(), value)
        return self._encode(fitted)


_RAW_TRUTHS: Final = {
    form: msgspec.Raw(truth)
    for words, truth in ((TRUE_WORDS, b"true"), (FALSE_WORDS, b"false"))
    for word in words
    for form in (b'"%b"' % word.encode(), word.encode())
    if form.startswith(b'"') or word.isdigit()
}


def truths(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts and the numbers 1 and 0 as truth values, where each of them is one; else the values as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return values
    words = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    is_true = pc.is_in(words, pa.array(TRUE_WORDS))
    known = pc.or_(is_true, pc.or_(pc.is_in(words, pa.array(FALSE_WORDS)), pc.is_null(words)))
    if not pc.all(known).as_py():
        return values  # the server says which value is none
    return pc.if_else(pc.is_null(words), pa.scalar(None, pa.bool_()), is_true)
