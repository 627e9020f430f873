"""A refused batch names the row, the column, what was expected and what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from kalam.errors import ColumnNotFound, InvalidValue, KalamError, NotNullViolation
from kalam.rows.codec import Codec

MakeCodec = Callable[[str], Codec]
CREATE = (
    "CREATE TABLE n.t (k INT PRIMARY KEY, t TEXT NOT NULL, s SMALLINT, b BOOLEAN, f FLOAT, d DOUBLE, m DECIMAL(5,2), "
    "x BLOB, at TIMESTAMP, day DATE, u UUID, v VARCHAR(3), n INT NOT NULL DEFAULT 1)"
)


def refusal(codec: Codec, payload: bytes, *, arrow: bool = False) -> KalamError:
    with pytest.raises(KalamError) as refused:
        codec.decoder.decode(payload, user="ann", arrow=arrow)
    return refused.value


def forms(rows: Any) -> list[bytes]:
    return [json.dumps(rows).encode(), msgpack.packb(rows)]


@pytest.mark.parametrize(
    ("column", "value", "expected", "found"),
    [
        ("k", "x", "INT", "str"),
        ("k", 1.5, "INT", "float"),
        ("k", 1 << 31, "INT", ""),
        ("s", 32_768, "SMALLINT", "32767"),
        ("b", 1, "BOOLEAN", "int"),
        ("t", 7, "TEXT", "int"),
        ("f", 1e300, "FLOAT", "1e+300"),
        ("d", "x", "DOUBLE", ""),
        ("m", "1000", "DECIMAL(5,2)", "1000"),
        ("x", "%", "BLOB", ""),
        ("at", "yesterday", "TIMESTAMP", ""),
        ("at", 1 << 60, "TIMESTAMP", "1152921504606846976"),
        ("day", "2026-02-30", "DATE", ""),
        ("u", "x", "UUID", ""),
        ("v", "four", "VARCHAR(3)", ""),
    ],
)
def test_a_wrong_value_is_named(codec_of: MakeCodec, column: str, value: Any, expected: str, found: str) -> None:
    codec = codec_of(CREATE)
    good = {"k": 1, "t": "x"}
    for rows, place in (([good] * 4 + [good | {column: value}], "row 5: "), (good | {column: value}, "")):
        for payload in forms(rows):
            error = refusal(codec, payload)
            assert isinstance(error, InvalidValue)
            for part in (place, f"column {column} expects", expected, found):
                assert part in error.detail, error.detail


@pytest.mark.parametrize("column", ["k", "t", "n"])
def test_a_missing_value_is_named(codec_of: MakeCodec, column: str) -> None:
    codec, good = codec_of(CREATE), {"k": 1, "t": "x", "n": 1}
    bad = [good | {column: None}]
    if column != "n":  # which has a default
        bad.append({name: value for name, value in good.items() if name != column})
    for row in bad:
        for payload in forms([good, row]):
            error = refusal(codec, payload)
            assert isinstance(error, NotNullViolation)
            assert error.detail.startswith(f"row 2: column {column} is ")


def test_an_unknown_column_is_named_with_those_that_there_are(codec_of: MakeCodec) -> None:
    codec = codec_of(CREATE)
    for payload in forms([{"k": 1, "t": "x", "nope": 1}]):
        error = refusal(codec, payload)
        assert isinstance(error, ColumnNotFound)
        assert error.detail.startswith("row 1: table n.t has no column 'nope'; it has k, t, s")
    for name in ("_updated", "_deleted", "_row_id", "_key"):
        assert isinstance(refusal(codec, forms([{"k": 1, "t": "x", name: 1}])[0]), InvalidValue)


def test_each_of_many_messages_has_its_own_error(codec_of: MakeCodec) -> None:
    codec = codec_of(CREATE)
    rows = [{"k": 1, "t": "x"}, {"k": "1", "t": "x"}, {"t": "x"}, {"k": 2, "t": "y"}, {"k": 1, "t": "x", "m": "1e9"}]
    outcomes = codec.decoder.decode_each([json.dumps(row).encode() for row in rows], user="ann")
    assert [getattr(outcome, "code", outcome[0] if isinstance(outcome, tuple) else None) for outcome in outcomes] == [
        1,
        "invalid_value",
        "not_null_violation",
        2,
        "invalid_value",
    ]


@pytest.mark.parametrize(
    ("column", "values", "code"),
    [
        ("k", pa.array(["x"]), "invalid_value"),
        ("k", pa.array([1 << 40]), "invalid_value"),
        ("k", pa.array([1.5]), "invalid_value"),
        ("k", pa.array([None], pa.int32()), "not_null_violation"),
        ("t", pa.array([None], pa.string()), "not_null_violation"),
        ("v", pa.array(["four"]), "invalid_value"),
        ("m", pa.array(["1000"]), "invalid_value"),
        ("m", pa.array(["x"]), "invalid_value"),
        ("u", pa.array(["x"]), "invalid_value"),
        ("at", pa.array(["x"]), "invalid_value"),
        ("at", pa.array([[1]]), "invalid_value"),
        ("day", pa.array(["x"]), "invalid_value"),
        ("b", pa.array(["maybe"]), "invalid_value"),
        ("nope", pa.array([1]), "column_not_found"),
        ("_updated", pa.array([1]), "invalid_value"),
    ],
)
def test_a_wrong_arrow_column_is_named(codec_of: MakeCodec, column: str, values: pa.Array, code: str) -> None:
    codec = codec_of(CREATE)
    table = pa.table({"k": pa.array([1]), "t": pa.array(["x"])} | {column: values})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    error = refusal(codec, sink.getvalue().to_pybytes(), arrow=True)
    assert (error.code, column in error.detail) == (code, True), error.detail


@pytest.mark.parametrize(
    ("column", "good", "bad", "found"),
    [
        ("b", "true", "maybe", "BOOLEAN, found 'maybe'"),
        ("k", "1", "99999999999", "INT, found '99999999999'"),
        ("day", "2001-01-01", "2001-13-01", "DATE, found '2001-13-01'"),
        ("at", "2001-01-01T00:00:00Z", "soon", "TIMESTAMP, found 'soon'"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2500, 2999])
def test_a_text_that_does_not_fit_is_told_with_its_row(
    codec_of: MakeCodec, column: str, good: str, bad: str, found: str, place: int
) -> None:
    texts = [good] * 3000
    texts[place] = bad
    columns = {"k": pa.array([1] * 3000), "t": pa.array(["x"] * 3000)} | {column: pa.array(texts)}
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    error = refusal(codec_of(CREATE), sink.getvalue().to_pybytes(), arrow=True)
    assert error.detail == f"row {place + 1}: column {column} expects {found}"
