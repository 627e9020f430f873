"""Rows in bulk: where a body is cut into pieces changes neither its rows nor the messages that are made of them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import msgpack
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalam.rows.formats.batches import BadRow, Batch, Cutter, RawBatcher, TableBatcher
from kalam.rows.formats.csv_text import CsvText
from kalam.rows.formats.json_text import JsonArray, JsonLines
from kalam.rows.formats.msgpack_maps import MsgpackMaps
from kalam.rows.timestamps import timestamps

ROW_BYTES = 1 << 20
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
rows_of_any_kind = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=8)
cuts = st.lists(st.integers(0, 10_000), max_size=12)
stamps = st.datetimes(timezones=st.just(UTC))


def pieces(body: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    return [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def cut(cutter: Cutter, body: bytes, places: list[int]) -> list[bytes]:
    return [row for piece in pieces(body, places) for row in cutter.feed(piece)] + list(cutter.end())


@settings(deadline=None)
@given(rows_of_any_kind, cuts, st.sampled_from([None, 1]), st.booleans())
def test_json_rows_are_the_same_in_any_pieces(rows, places, indent, ascii_only):
    body = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert [json.loads(row) for row in cut(JsonArray(ROW_BYTES), body, places)] == rows
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    assert [json.loads(row) for row in cut(JsonLines(ROW_BYTES), lines, places)] == rows


elements = st.lists(
    rows_of_any_kind.map(lambda rows: rows[0] if rows else {})
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text('[]{},"\\a'), lambda inner: st.lists(inner, max_size=3)
    )
)


@settings(deadline=None)
@given(elements, cuts, st.sampled_from([None, 1]))
def test_elements_of_an_array_that_are_no_rows_are_left_out_by_their_numbers(elements, places, indent):
    left_out = {}

    def on_bad(error, text):
        left_out[error.fields["row"]] = json.loads(text)

    body = json.dumps(elements, indent=indent).encode()
    rows = [json.loads(row) for row in cut(JsonArray(ROW_BYTES, on_bad), body, places)]
    assert rows == [element for element in elements if isinstance(element, dict)]
    bad = {number: element for number, element in enumerate(elements, 1) if not isinstance(element, dict)}
    assert left_out == bad


@settings(deadline=None)
@given(rows_of_any_kind, cuts, st.booleans())
def test_msgpack_rows_are_the_same_in_any_pieces(rows, places, as_array):
    body = msgpack.packb(rows) if as_array else b"".join(map(msgpack.packb, rows))
    assert [msgpack.unpackb(row) for row in cut(MsgpackMaps(ROW_BYTES), body, places)] == rows


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(), texts), max_size=8), cuts)
def test_csv_rows_are_the_same_in_any_pieces(rows, places):
    sink = io.StringIO(newline="")
    sink.write('id,"the ""text"""\n')
    for number, text in rows:
        quoted = "" if text is None else '"' + text.replace('"', '""') + '"'
        sink.write(f"{number},{quoted}\n")
    cutter = CsvText(ROW_BYTES)
    tables = [cutter.feed(piece) for piece in pieces(sink.getvalue().encode(), places)] + [cutter.end()]
    found = [tuple(row.values()) for table in tables if table is not None for row in table.to_pylist()]
    assert found == [(str(number), text) for number, text in rows]
    assert next(csv.reader([sink.getvalue().splitlines()[0]])) == ["id", 'the "text"']


def rows_of(batch: Batch) -> list[int]:
    with pa.ipc.open_stream(batch.payload) as reader:
        ids: list[int] = reader.read_all().column("id").to_pylist()
        return ids


def sizes(batches: list[Batch]) -> list[int]:
    return [batch.rows for batch in batches]


def test_a_batch_is_bounded_in_rows_and_in_bytes():
    batcher = RawBatcher(rows_max=3, bytes_max=10)
    found = [*batcher.add([b"{}"] * 7), *batcher.add([b"x" * 20, b"{}"]), *batcher.end()]
    assert sizes(found) == [3, 3, 1, 1, 1]
    assert found[0].payload == b"[{},{},{}]"
    assert list(batcher.end()) == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_tables_make_the_same_batches_however_they_are_cut(lengths):
    whole = pa.table({"id": range(sum(lengths)), "t": ["x" * 50] * sum(lengths)})

    def batches(cuts: list[int]) -> list[Batch]:
        batcher, found, begin = TableBatcher(rows_max=16, bytes_max=1_000), [], 0
        for length in cuts:
            found += batcher.add(whole.slice(begin, length))
            begin += length
        return found + list(batcher.end())

    assert sizes(batches(lengths)) == sizes(batches([sum(lengths)]))
    assert [number for batch in batches(lengths) for number in rows_of(batch)] == list(range(sum(lengths)))
    assert sum(sizes(batches(lengths))) == sum(lengths)
    assert all(size <= 16 for size in sizes(batches(lengths)))


@pytest.mark.parametrize(
    "body", [b"[", b"[{}", b'["a"]', b"[1]", b"[{}}", b"[{},{}]]", b'{"a": [}', b"[[{}]]", b"[{}{}]", b"[] []"]
)
def test_what_is_no_array_of_objects_is_refused_in_any_pieces(body):
    for place in range(len(body)):
        with pytest.raises(BadRow):
            cut(JsonArray(ROW_BYTES), body, [place])


@settings(deadline=None)
@given(st.lists(st.none() | stamps))
def test_timestamps_are_those_of_arrow(found):
    column = pa.chunked_array([pa.array(found, pa.timestamp("us", "UTC"))])
    assert timestamps(column) == found
    assert all(value is None or value.tzinfo is UTC for value in timestamps(column))


@pytest.mark.parametrize("value", [-62_135_596_800_000_001, 253_402_300_800_000_000, -(2**63), 2**63 - 1])
def test_a_timestamp_beyond_the_years_is_refused(value):
    with pytest.raises(ValueError, match="year"):
        timestamps(pa.chunked_array([pa.array([value], pa.timestamp("us", "UTC"))]))


def test_the_latest_and_the_earliest_timestamps_are_kept():
    for value in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert timestamps(pa.chunked_array([pa.array([value], pa.timestamp("us", "UTC"))])) == [value]


KINDS = [
    *(pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal32(5, 2), pa.decimal128(10, 2)),
    *(pa.decimal256(50, 2), pa.string(), pa.large_string(), pa.binary(), pa.binary(16), pa.timestamp("us", "UTC")),
    *(pa.date32(), pa.time64("us"), pa.duration("us"), pa.null(), pa.month_day_nano_interval()),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_of_every_type_make_batches(kind: pa.DataType) -> None:
    batcher = TableBatcher(10, 1 << 20)
    batches = [*batcher.add(pa.table({"a": pa.nulls(25, kind)})), *batcher.end()]
    assert [batch.rows for batch in batches] == [10, 10, 5]


def test_a_batch_is_full_by_the_bytes_of_its_rows_whatever_pieces_they_came_in() -> None:
    table = pa.table({"a": ["x" * (n % 7 * 300) for n in range(400)], "n": range(400)})
    cuts = []
    for size in (1, 7, 90, 400):
        batcher = TableBatcher(100, 20_000)
        pieces = [table.slice(start, size) for start in range(0, 400, size)]
        batches = [batch for piece in pieces for batch in batcher.add(piece)] + list(batcher.end())
        assert all(len(batch.payload) <= 20_000 for batch in batches)
        cuts.append([batch.rows for batch in batches])
    assert cuts == [cuts[0]] * 4
    assert sum(cuts[0]) == 400
    assert min(cuts[0][:-1]) > 10
