"""Which rows of a segment newer versions hide: their places in the file, as Iceberg's position deletes.

The law is that of every read (``storage/DESIGN.md``): of a key that has an override, the rows with a smaller ``_seq``
are hidden. Files that can hold no such row are not opened for it: the key filter says so, or the bounds of ``_seq``.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalam.rows.field_ids import FIELD_ID
from kalam.rows.keys import key_arrays, places_among
from kalam.schema import SEQ, Column, Key
from kalam.storage.segments.key_filter import KeyFilter, KeyHashes
from kalam.storage.segments.remote import readable

Places = npt.NDArray[np.int64]
BATCH_ROWS = 65_536
NOTHING: Places = np.empty(0, np.int64)

DELETES_SCHEMA = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={FIELD_ID: "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={FIELD_ID: "2147483545"}),
    ]
)
"""The columns of a file of position deletes, with the ids that the specification gives them."""


class Overrides:
    """The overrides of a copy: keys and, of each, the seq of the version that hides older ones."""

    def __init__(self, overrides: Mapping[Key, int], key: Sequence[Column]) -> None:
        self._keys = key_arrays(list(overrides), key)
        self._seqs = np.fromiter(overrides.values(), np.int64, len(overrides))
        self._hashes = KeyHashes.of_columns(self._keys) if len(overrides) else np.empty(0, np.uint64)

    def hidden(
        self, path: Path, key: Sequence[str], *, min_seq: int, after_seq: int, key_filter: KeyFilter | None
    ) -> Places:
        """The places of the rows that are hidden by overrides newer than ``after_seq``; blocking.

        ``key`` is what the key's columns are called in the file. Raises FileNotFoundError.
        """
        chosen = self._seqs > max(min_seq, after_seq)
        if key_filter is not None and chosen.any():
            chosen &= key_filter.may_contain(self._hashes)
        if not chosen.any():
            return NOTHING
        keys, seqs = [own.filter(pa.array(chosen)) for own in self._keys], pa.array(self._seqs[chosen])
        found: list[Places] = []
        start = 0
        with pq.ParquetFile(readable(path)) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[*key, SEQ]):
                rows = [batch.column(name).cast(own.type) for name, own in zip(key, keys, strict=True)]
                newest = pc.take(seqs, places_among(rows, keys))
                hidden = pc.fill_null(pc.less(batch.column(SEQ), newest), False)
                found.append(np.flatnonzero(hidden.to_numpy(zero_copy_only=False)) + start)
                start += batch.num_rows
        return np.concatenate(found) if found else NOTHING


def deletes_file(places: Mapping[str, Places]) -> bytes:
    """A file of position deletes, sorted as the specification wants it."""
    paths = sorted(path for path, own in places.items() if len(own))
    table = pa.table(
        [
            pa.array(np.repeat(np.array(paths, object), [len(places[path]) for path in paths]), pa.string()),
            pa.array(np.concatenate([np.sort(places[path]) for path in paths])),
        ],
        schema=DELETES_SCHEMA,
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=False)
    return out.getvalue()


def read_deletes(content: bytes) -> dict[str, Places]:
    """The positions by data file."""
    table = pq.read_table(io.BytesIO(content), columns=["file_path", "pos"])
    coded = table.column("file_path").combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy(zero_copy_only=False)
    places = table.column("pos").to_numpy()
    return {path: places[codes == code] for code, path in enumerate(coded.dictionary.to_pylist())}


def united(all_places: Iterable[Mapping[str, Places]], live: Container[str]) -> dict[str, Places]:
    """The positions of several files together, of the data files that live."""
    found: dict[str, list[Places]] = {}
    for places in all_places:
        for path, own in places.items():
            if path in live:
                found.setdefault(path, []).append(own)
    return {path: np.unique(np.concatenate(parts)) for path, parts in found.items()}
