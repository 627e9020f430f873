"""Everything that turns rows of one table, at one schema version, from one form into another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from kalam.errors import KalamError
from kalam.rows.door import RowDecoder
from kalam.rows.normalise import Generators
from kalam.rows.shown import RowShower
from kalam.rows.shown_columns import ColumnShower
from kalam.rows.stored import StoredRows
from kalam.rows.taking import PLAIN, Taking
from kalam.rows.types import Row
from kalam.schema import DELETED, UPDATED, PayloadFormat, Table

JSON_GROWTH = 6
"""A byte of a stored text may become as many in JSON (a control character, escaped)."""


class Codec:
    """The coders of a table, each made when first needed."""

    def __init__(self, table: Table, generators: Generators) -> None:
        self.table = table
        self._generators = generators
        self._decoders: dict[Taking, RowDecoder] = {}

    @cached_property
    def decoder(self) -> RowDecoder:
        """Messages and SQL values to rows."""
        return RowDecoder(self.table, self._generators)

    @cached_property
    def _bigint_texts(self) -> RowDecoder:
        return RowDecoder(self.table, self._generators, bigint_texts=True)

    def decode_events(
        self, payloads: Sequence[bytes], seqs: Sequence[int], stored_us: Sequence[int]
    ) -> list[Row | KalamError]:
        """One row, or its error, for each event of a STREAM table, whatever BIGINT_AS_TEXT was at its time."""
        rows = self.decoder.decode_events(payloads, seqs, stored_us)
        wrong = [place for place, row in enumerate(rows) if isinstance(row, KalamError)]
        if wrong and not self.table.options.bigint_as_text:
            events = zip(*((payloads[place], seqs[place], stored_us[place]) for place in wrong), strict=True)
            for place, row in zip(wrong, self._bigint_texts.decode_events(*events), strict=True):
                rows[place] = row
        return rows

    def decoder_of(self, taking: Taking) -> RowDecoder:
        """The same for messages that want to be taken otherwise; whether rows are skipped is no matter of reading."""
        taking = msgspec.structs.replace(taking, skip=False)
        if taking == PLAIN:
            return self.decoder
        decoder = self._decoders.get(taking)
        if decoder is None:
            decoder = self._decoders[taking] = RowDecoder(self.table, self._generators, taking)
        return decoder

    @cached_property
    def stored(self) -> StoredRows:
        """Stored blobs to rows."""
        return StoredRows(self.table.columns)

    @cached_property
    def events(self) -> RowShower:
        """Rows to the payloads of a STREAM table's events, and to the ``old`` of an update."""
        return self._shower(())

    @cached_property
    def changes(self) -> RowShower:
        """Rows to the members of a change: the columns, then ``_updated`` and ``_deleted``."""
        return self._shower((UPDATED, DELETED))

    @cached_property
    def column_changes(self) -> ColumnShower | None:
        """The same of columns to their JSON; None where the table's events are none."""
        if self.table.payload_format is not PayloadFormat.JSON:
            return None
        as_text = self.table.options.bigint_as_text
        return ColumnShower(self.table.shown_columns, (UPDATED, DELETED), bigint_as_text=as_text)

    @cached_property
    def _event_frame(self) -> int:
        """More bytes than all that an event of one row has beside the values."""
        return 200 + sum(len(column.name) + 24 for column in self.table.columns)

    def may_exceed(self, stored_bytes: int, event_bytes_max: int) -> bool:
        """Whether the event of a row that takes so many bytes stored may be larger than a bound."""
        return stored_bytes * JSON_GROWTH + self._event_frame > event_bytes_max

    def _shower(self, constants: tuple[str, ...]) -> RowShower:
        table, shown = self.table, self.table.shown_columns
        as_text, hidden = table.options.bigint_as_text, len(table.columns) - len(shown)
        return RowShower(shown, table.payload_format, constants, bigint_as_text=as_text, hidden=hidden)


class Codecs:
    """The codecs by table and schema version."""

    def __init__(self, generators: Generators) -> None:
        self.generators = generators
        self._codecs: dict[tuple[int, int], Codec] = {}

    def of(self, table: Table) -> Codec:
        """The codec of a table."""
        name = (table.table_id, table.schema_version)
        codec = self._codecs.get(name)
        if codec is None or (codec.table is not table and codec.table != table):
            codec = self._codecs[name] = Codec(table, self.generators)
        return codec

    def forget(self, table: Table) -> None:
        """Let go of the codec of a table that is not there any more."""
        self._codecs.pop((table.table_id, table.schema_version), None)
