from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalam.cli.rows_file import LINE_BYTES_MAX, BadLine, RowBatch, read_ndjson
from kalam.cli.server_columns import ServerColumns


def batches(text: bytes, rows_max: int = 1_000, bytes_max: int = 1 << 20) -> list[RowBatch]:
    return list(
        read_ndjson(
            io.BytesIO(text),
            rows_max=rows_max,
            bytes_max=bytes_max,
            row_bytes_max=1 << 20,
            server_columns=ServerColumns(),
        )
    )


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=9), max_size=3), max_size=40),
    blank=st.lists(st.sampled_from([b"", b"\n", b" \r\n"]), min_size=41, max_size=41),
    rows_max=st.integers(1, 7),
    bytes_max=st.integers(200, 400),
)
def test_batches_hold_every_row_once_in_order_within_their_bounds(rows, blank, rows_max, bytes_max):
    text = b"".join(gap + json.dumps(row).encode() + b"\n" for row, gap in zip(rows, blank, strict=False))
    found = batches(text, rows_max, bytes_max)
    assert [row for batch in found for row in json.loads(batch.payload)] == rows
    assert all(batch.rows == len(json.loads(batch.payload)) <= rows_max for batch in found)
    assert all(len(batch.payload) <= bytes_max or batch.rows == 1 for batch in found)
    ranges = [line for batch in found for line in (batch.first_line, batch.last_line)]
    assert ranges == sorted(ranges)
    if found:
        assert found[-1].end_byte == len(text)


def test_the_lines_of_a_batch_count_blank_ones():
    (batch,) = batches(b'\n\n{"a":1}\n\n{"a":2}\n\n')
    assert (batch.first_line, batch.last_line, batch.rows) == (3, 5, 2)


def test_a_row_over_the_size_of_a_batch_is_a_batch_of_its_own():
    small, large = b'{"a":1}\n', b'{"a":"' + b"x" * 500 + b'"}\n'
    assert [batch.rows for batch in batches(small * 2 + large + small, bytes_max=100)] == [2, 1, 1]


def test_a_file_without_line_ends_is_not_read_whole():
    file = io.BytesIO(b" " * (LINE_BYTES_MAX + 1000))
    with pytest.raises(BadLine, match="line 1 is longer"):
        list(read_ndjson(file, rows_max=1, bytes_max=1 << 30, row_bytes_max=1 << 30, server_columns=ServerColumns()))
    assert file.tell() == LINE_BYTES_MAX + 1
