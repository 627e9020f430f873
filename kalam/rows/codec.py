"""Everything that turns rows of one table, at one schema version, from one form into another."""

from __future__ import annotations

from functools import cached_property

import msgspec

from kalam.rows.door import RowDecoder
from kalam.rows.normalise import Generators
from kalam.rows.shown import RowShower
from kalam.rows.stored import StoredRows
from kalam.rows.taking import PLAIN, Taking
from kalam.schema import DELETED, UPDATED, Table


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
        return RowShower(self.table.columns, self.table.options.format)

    @cached_property
    def changes(self) -> RowShower:
        """Rows to the members of a change: the columns, then ``_updated`` and ``_deleted``."""
        return RowShower(self.table.columns, self.table.options.format, (UPDATED, DELETED))


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
