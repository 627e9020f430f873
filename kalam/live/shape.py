"""How a live query's rows are shown: its columns and its format. What many queries show alike is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kalam.live.transitions import Pick
from kalam.rows.shown import RowShower, differs
from kalam.rows.types import Row
from kalam.schema import DELETED, UPDATED, Column, PayloadFormat
from kalam.tables.versions import ChangeBatch

MESSAGE_BYTES_MAX = 256 << 10
MESSAGE_ROWS_MAX = 1_000


class Shape:
    """A projection in a format. ``columns`` are those of the versions, ``places`` the chosen ones."""

    def __init__(
        self,
        columns: Sequence[Column],
        places: Sequence[int],
        payload_format: PayloadFormat,
        change_bytes_max: int,
        *,
        bigint_as_text: bool = False,
    ) -> None:
        self.columns = tuple(columns[place] for place in places)
        self.format = payload_format
        self._places = tuple(places)
        self._whole = self._places == tuple(range(len(columns)))
        self._former = tuple(
            (column.name, place)
            for column, place in zip(self.columns, places, strict=True)
            if column.name not in (UPDATED, DELETED)
        )
        self._stamped = len(self._former) < len(self._places)
        self._shower = RowShower(self.columns, payload_format, bigint_as_text=bigint_as_text)
        self._bytes_max = change_bytes_max
        self._encode = self._shower.encode

    def _chosen(self, version: Row) -> Row:
        return version if self._whole else tuple(version[place] for place in self._places)

    def changes(self, batch: ChangeBatch, picks: Sequence[Pick]) -> dict[Pick, bytes | None]:
        """Each pick as the text of one change; None for an update that changes nothing that is shown."""
        rows = self._shower.maps([self._chosen(_shown(batch, pick)) for pick in picks])
        return {pick: self._change(batch, pick, row) for pick, row in zip(picks, rows, strict=True)}

    def _change(self, batch: ChangeBatch, pick: Pick, row: Any) -> bytes | None:
        op, place = pick
        body: dict[str, Any] = {"op": op, "seq": batch.seqs[place], "row": row}
        if op == "update":
            old, new = batch.olds[place], batch.news[place]
            assert old is not None
            assert new is not None
            names = {name for name, at in self._former if differs(old[at], new[at])}
            if not names and not self._stamped:
                return None
            [former] = self._shower.maps([self._chosen(old)])
            body["old"] = {name: getattr(former, name) for name, _ in self._former if name in names}
        text = self._encode(body)
        if len(text) > self._bytes_max and body.pop("old", None):
            text = self._encode({**body, "old_omitted": True})
        return text

    def snapshot(self, rows: Sequence[Row]) -> Iterator[bytes]:
        """The messages that carry rows of the projection (not whole versions)."""
        for start in range(0, len(rows), MESSAGE_ROWS_MAX):
            yield from self._snapshot(self._shower.maps(rows[start : start + MESSAGE_ROWS_MAX]))

    def _snapshot(self, maps: Sequence[Any]) -> Iterator[bytes]:
        payload = self._encode({"type": "snapshot", "rows": maps})
        if len(payload) <= MESSAGE_BYTES_MAX or len(maps) == 1:
            yield payload
            return
        middle = len(maps) // 2
        yield from self._snapshot(maps[:middle])
        yield from self._snapshot(maps[middle:])

    def message(self, body: dict[str, Any]) -> bytes:
        """A message without rows."""
        return self._encode(body)

    def changes_message(self, changes: Sequence[bytes]) -> bytes:
        """The message that carries encoded changes."""
        if self.format is PayloadFormat.JSON:
            return b'{"type":"changes","changes":[' + b",".join(changes) + b"]}"
        return _MSGPACK_CHANGES + b"\xdd" + len(changes).to_bytes(4, "big") + b"".join(changes)


_MSGPACK_CHANGES = b"\x82" + b"".join(map(msgspec.msgpack.encode, ("type", "changes", "changes")))


def _shown(batch: ChangeBatch, pick: Pick) -> Row:
    """The version that a change shows: for a delete the row as it was last seen."""
    op, place = pick
    version = batch.olds[place] if op == "delete" else batch.news[place]
    assert version is not None
    return version
