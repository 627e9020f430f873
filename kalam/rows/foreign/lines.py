"""Payloads that are a line of CSV, a text, or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kalam.errors import KalamError
from kalam.rows.foreign.faults import Fault, Faults, Reason, from_texts
from kalam.rows.formats.csv_text import CsvText, Dialect
from kalam.schema import Column

LINE_BYTES_MAX = 64 << 20
"""No message is larger: it is NATS's own bound."""


class Lines:
    """A line of CSV fills the columns in their order; what is between two commas is NULL if there is nothing."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    def read(self, payloads: Sequence[bytes], faults: Faults) -> list[Sequence[Any]]:
        """The values of each column; NULL for what is wrong, and noted."""
        rows = [self._fields(payload, place, faults) for place, payload in enumerate(payloads)]
        texts = zip(*rows, strict=True) if rows else [()] * len(self._columns)
        return [from_texts(column, fields, faults) for column, fields in zip(self._columns, texts, strict=False)]

    def _fields(self, payload: bytes, place: int, faults: Faults) -> Sequence[str | None]:
        nothing = [None] * len(self._columns)
        line = payload.removesuffix(b"\n").removesuffix(b"\r")
        fields: Sequence[str | None]
        try:
            fields = self._quoted(line) if b'"' in line else [text or None for text in line.decode().split(",")]
        except UnicodeDecodeError:
            faults.setdefault(place, Fault(Reason.MALFORMED, "the payload is not UTF-8"))
            return nothing
        except KalamError as exc:
            faults.setdefault(place, Fault(Reason.MALFORMED, f"the payload is no line of CSV: {exc.detail}"))
            return nothing
        if len(fields) != len(self._columns) or (b"\n" in line and b'"' not in line):
            text = f"the line has {len(fields)} fields, and the table {len(self._columns)} columns without FROM"
            faults.setdefault(place, Fault(Reason.WRONG_FIELDS, text))
            return nothing
        return fields

    def _quoted(self, line: bytes) -> Sequence[str | None]:
        """The fields of a line in which some are quoted; raises BadRow for one of another number of them."""
        reader = CsvText(LINE_BYTES_MAX, Dialect(names=[column.name for column in self._columns]))
        tables = [table for table in (reader.feed(line + b"\n"), reader.end()) if table is not None]
        if sum(table.num_rows for table in tables) != 1:
            return ()
        return [column[0].as_py() for table in tables for column in table.columns]


class Whole:
    """The payload is the value of the one column."""

    def __init__(self, columns: Sequence[Column], *, text: bool) -> None:
        self._columns, self._text = columns, text

    def read(self, payloads: Sequence[bytes], faults: Faults) -> list[Sequence[Any]]:
        """The values of the column, if there is one; NULL for what is wrong, and noted."""
        if not self._columns:
            return []
        if not self._text:
            return [list(map(bytes, payloads))]
        texts: list[str | None] = []
        for place, payload in enumerate(payloads):
            try:
                texts.append(payload.decode())
            except UnicodeDecodeError:
                faults.setdefault(place, Fault(Reason.MALFORMED, "the payload is not UTF-8"))
                texts.append(None)
        return [from_texts(self._columns[0], texts, faults)]
