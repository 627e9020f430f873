"""A value means the same at every door and in every clause: what went in comes out, and is found by what went in.

One table has a column of each type. Every door inserts the same rows into it, row ``i`` with sample ``i`` of each type;
then each sample is looked for in each clause, in every text that a door takes for it, hot and cold.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_program import Program
from live_subscriber import connected, subscribe
from server_process import ServerProcess
from warm_start import run_kalam

from kalam.schema import TypeName

NAN, INF = float("nan"), float("inf")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS = 6


@dataclass(frozen=True)
class Sample:
    """A value: as answers show it, as Arrow has it, and the literals that stand for it, the first as it goes in."""

    shown: Any
    arrow: Any
    literals: tuple[str, ...]
    native: Any = None  # what msgpack has for it, if not what is shown
    given: Any = None  # the text or number that is given at a door, if not what is shown


def text(shown: str, arrow: Any, *others: str, native: Any = None, given: Any = None) -> Sample:
    """A sample whose literals are texts."""
    literals = tuple("'" + each.replace("'", "''") + "'" for each in (given or shown, *others))
    return Sample(shown, arrow, literals, native, given)


def number(value: float, *others: str, shown: Any = None) -> Sample:
    return Sample(value if shown is None else shown, value, (repr(value), *others))


def moment(value: datetime, shown: str, *others: str, given: str | None = None) -> Sample:
    micros = (value - EPOCH).days * 86_400_000_000 + (value - EPOCH).seconds * 1_000_000 + value.microsecond
    seconds, rest = divmod(micros, 1_000_000)
    return text(shown, value, *others, native=msgpack.Timestamp(seconds, rest * 1_000), given=given)


def blob(value: bytes) -> Sample:
    return text(base64.b64encode(value).decode(), value, native=value)


def document(value: Any, given: str) -> Sample:
    return Sample(value, given, ("'" + given.replace("'", "''") + "'",))


def uuid(value: UUID, given: str, *others: str) -> Sample:
    return text(str(value), str(value), str(value), *others, given=given)


V7 = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
LAST_US = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
SAMPLES: dict[str, tuple[pa.DataType, list[Sample]]] = {
    "BOOLEAN": (pa.bool_(), [Sample(True, True, ("TRUE", "'true'", "'t'")), Sample(False, False, ("FALSE", "'f'"))]),
    "SMALLINT": (pa.int16(), [number(value) for value in (0, -32768, 32767)]),
    "INT": (pa.int32(), [number(value) for value in (0, -(2**31), 2**31 - 1)]),
    "BIGINT": (pa.int64(), [number(value) for value in (0, 1 - 2**63, 2**63 - 1, 2**53 + 1)]),
    "FLOAT": (pa.float32(), [number(0.1), number(-1.5), text("NaN", NAN, native=NAN), text("Infinity", INF)]),
    "DOUBLE": (
        pa.float64(),
        [number(0.1), number(5e-324), text("NaN", NAN, native=NAN), text("-Infinity", -INF), number(1e308)],
    ),
    "DECIMAL(20,2)": (
        pa.decimal128(20, 2),
        [Sample(shown, Decimal(shown), (f"'{shown}'", shown)) for shown in ("123456789012345678.91", "-0.01", "0.00")],
    ),
    "TEXT": (pa.string(), [text(value, value) for value in ("", "it's", "ü 😀", "NaN", "\\", " 1 ")]),
    "BLOB": (pa.binary(), [blob(value) for value in (b"", b"\0", b"abc", bytes(range(256)))]),
    "TIMESTAMP": (
        pa.timestamp("us", "UTC"),
        [
            moment(LAST_US, "9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999+00:00"),
            moment(datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z", "0001-01-01T00:00:00Z"),
            moment(
                datetime(2024, 1, 1, microsecond=1, tzinfo=UTC),
                "2024-01-01T00:00:00.000001Z",
                "2024-01-01T01:00:00.0000005+01:00",
                given="2024-01-01T00:00:00.0000006Z",
            ),
            moment(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), "1969-12-31T23:59:59.999999Z"),
        ],
    ),
    "DATE": (
        pa.date32(),
        [text(day.isoformat(), day) for day in (date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29))],
    ),
    "JSON": (
        pa.string(),
        [document({"b": 1, "a": ["it's", None]}, '{ "b": 1, "a": ["it\'s", null] }'), document("x", '"x"')],
    ),
    "UUID": (
        pa.string(),
        [
            uuid(V7, str(V7).upper(), V7.hex, f"{{{V7}}}"),
            uuid(UUID(int=0), "0" * 32),
            uuid(UUID(int=255), f"{UUID(int=255)}"),
        ],
    ),
}
NAMES = {kind: kind.partition("(")[0].lower() + "_" for kind in SAMPLES}
COLUMNS = "k TEXT PRIMARY KEY, " + ", ".join(f"{NAMES[kind]} {kind}" for kind in SAMPLES)


def sample(kind: str, row: int) -> Sample | None:
    """The sample of a type in a row; None for NULL, which each type has last."""
    samples = SAMPLES[kind][1]
    place = row % (len(samples) + 1)
    return samples[place] if place < len(samples) else None


def row_of(row: int, form: Callable[[str, Sample], Any]) -> dict[str, Any]:
    found = {kind: sample(kind, row) for kind in SAMPLES}
    return {NAMES[kind]: None if each is None else form(kind, each) for kind, each in found.items()}


def literals(row: int) -> dict[str, str]:
    return {name: value or "NULL" for name, value in row_of(row, lambda _, each: each.literals[0]).items()}


def as_json(kind: str, each: Sample) -> Any:
    if kind == "JSON":
        return json.loads(each.arrow)
    return each.shown if each.given is None else each.given


def as_parameter(kind: str, each: Sample) -> Any:
    return each.arrow if kind == "JSON" else as_json(kind, each)


def as_csv(kind: str, each: Sample) -> str:
    value = as_parameter(kind, each)
    return '"' + (str(value).lower() if isinstance(value, bool) else str(value)).replace('"', '""') + '"'


def arrow_table(door: str) -> pa.Table:
    columns: dict[str, pa.Array] = {"k": pa.array([f"{door}:{row}" for row in range(ROWS)])}
    for kind, (arrow, _) in SAMPLES.items():
        found = [sample(kind, row) for row in range(ROWS)]
        columns[NAMES[kind]] = pa.array([None if each is None else each.arrow for each in found], arrow)
    return pa.table(columns)


def other_arrow_table(door: str) -> pa.Table:
    """The same values in other types of Arrow."""
    table = arrow_table(door)
    binary = [None if u is None else UUID(u).bytes for u in table.column("uuid_").to_pylist()]
    replaced = {
        "uuid_": pa.ExtensionArray.from_storage(pa.uuid(), pa.array(binary, pa.binary(16))),
        "text_": table.column("text_").combine_chunks().dictionary_encode(),
        "blob_": table.column("blob_").cast(pa.large_binary()),
        "date_": table.column("date_").cast(pa.date64()),
        "bigint_": table.column("bigint_"),
        "json_": table.column("json_").cast(pa.large_string()),
        "decimal_": table.column("decimal_").cast(pa.decimal256(40, 2)),
    }
    for name, values in replaced.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


async def send(program: Program, table: str, payload: bytes, content_type: str | None = None) -> None:
    headers = {"Content-Type": content_type} if content_type else None
    answer = await program.insert(table, payload, headers=headers)
    assert answer.code is None, answer.detail


async def by_json(program: Program, table: str, door: str) -> None:
    rows = [{"k": f"{door}:{row}", **row_of(row, as_json)} for row in range(ROWS)]
    await send(program, table, json.dumps(rows).encode())


async def by_msgpack(program: Program, table: str, door: str) -> None:
    def native(kind: str, each: Sample) -> Any:
        return as_json(kind, each) if each.native is None else each.native

    await send(program, table, msgpack.packb([{"k": f"{door}:{row}", **row_of(row, native)} for row in range(ROWS)]))


async def by_arrow(program: Program, table: str, door: str) -> None:
    await send(program, table, stream(arrow_table(door)), "application/vnd.apache.arrow.stream")


async def by_other_arrow(program: Program, table: str, door: str) -> None:
    await send(program, table, stream(other_arrow_table(door)), "application/vnd.apache.arrow.stream")


async def by_csv(program: Program, table: str, door: str) -> None:
    lines = [",".join(["k", *NAMES.values()])]
    lines += [
        ",".join([f"{door}:{row}", *(value or "" for value in row_of(row, as_csv).values())]) for row in range(ROWS)
    ]
    insert_file(program.server, table, "rows.csv", "\n".join(lines).encode())


async def by_parquet(program: Program, table: str, door: str) -> None:
    sink = io.BytesIO()
    pq.write_table(arrow_table(door), sink)
    insert_file(program.server, table, "rows.parquet", sink.getvalue())


async def by_int96(program: Program, table: str, door: str) -> None:
    """As Spark and Impala write it: timestamps of 96 bits."""
    sink = io.BytesIO()
    pq.write_table(arrow_table(door), sink, use_deprecated_int96_timestamps=True)
    insert_file(program.server, table, "rows.parquet", sink.getvalue())


def insert_file(server: ServerProcess, table: str, name: str, content: bytes) -> None:
    file = server.data_dir.parent / name
    file.write_bytes(content)
    done = run_kalam("insert", "--data-dir", str(server.data_dir), table, str(file))
    assert done.returncode == 0, done.stderr


async def by_literal(program: Program, table: str, door: str) -> None:
    rows = ", ".join(f"('{door}:{row}', {', '.join(literals(row).values())})" for row in range(ROWS))
    program.server.sql(f"INSERT INTO {table} VALUES {rows}")


async def by_parameter(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        values = list(row_of(row, as_parameter).values())
        marks = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        program.server.sql(f"INSERT INTO {table} VALUES ('{door}:{row}', {marks})", *values)


async def by_select(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        program.server.sql(f"INSERT INTO {table} SELECT '{door}:{row}', {', '.join(literals(row).values())}")


async def by_default(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        given = literals(row)
        columns = ", ".join(f"{NAMES[kind]} {kind} DEFAULT {given[NAMES[kind]]}" for kind in SAMPLES)
        made = f"{table}_default_{row}"
        program.server.sql(f"CREATE TABLE {made} (k TEXT PRIMARY KEY, {columns})")
        program.server.sql(f"INSERT INTO {made} (k) VALUES ('{door}:{row}')")
        program.server.sql(f"INSERT INTO {table} SELECT k, {', '.join(NAMES.values())} FROM {made}")


async def by_set(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        values = ", ".join(f"{name} = {value}" for name, value in literals(row).items())
        where = f"k = '{door}:{row}'" if row % 2 else f"k || '' = '{door}:{row}'"
        program.server.sql(
            f"INSERT INTO {table} (k) VALUES ('{door}:{row}'); UPDATE {table} SET {values} WHERE {where}"
        )


async def by_set_parameter(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        given = row_of(row, as_parameter)
        values = ", ".join(f"{name} = ${place}" for place, name in enumerate(given, 1))
        key = f"{door}:{row}"
        program.server.sql(f"INSERT INTO {table} (k) VALUES ('{key}')")
        program.server.sql(f"UPDATE {table} SET {values} WHERE k = '{key}'", *given.values())


async def by_excluded(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        given = literals(row)
        values = ", ".join(f"{name} = excluded.{name}" for name in given)
        insert = f"INSERT INTO {table} VALUES ('{door}:{row}', {', '.join(given.values())})"
        program.server.sql(
            f"INSERT INTO {table} (k) VALUES ('{door}:{row}'); {insert} ON CONFLICT (k) DO UPDATE SET {values}"
        )


async def by_conflict(program: Program, table: str, door: str) -> None:
    for row in range(ROWS):
        values = ", ".join(f"{name} = {value}" for name, value in literals(row).items())
        insert = f"INSERT INTO {table} (k) VALUES ('{door}:{row}')"
        program.server.sql(f"{insert}; {insert} ON CONFLICT (k) DO UPDATE SET {values}")


DOORS = {
    "json": by_json,
    "msgpack": by_msgpack,
    "arrow": by_arrow,
    "other_arrow": by_other_arrow,
    "csv": by_csv,
    "parquet": by_parquet,
    "int96": by_int96,
    "literal": by_literal,
    "parameter": by_parameter,
    "select": by_select,
    "default": by_default,
    "set": by_set,
    "set_parameter": by_set_parameter,
    "excluded": by_excluded,
    "conflict": by_conflict,
}


@pytest.fixture(scope="module")
def table(shared_server: ServerProcess) -> str:
    shared_server.sql(f"CREATE NAMESPACE matrix; CREATE TABLE matrix.t ({COLUMNS})")
    return "matrix.t"


def test_the_matrix_has_every_type():
    assert {kind.partition("(")[0] for kind in SAMPLES} == set(TypeName)


@pytest.mark.parametrize("door", DOORS)
async def test_what_went_in_comes_out(program: Program, table: str, door: str) -> None:
    await DOORS[door](program, table, door)
    [result] = program.server.results(f"SELECT * FROM {table} WHERE k LIKE '{door}:%' ORDER BY k")
    names = [column["name"] for column in result["columns"]]
    found = [dict(zip(names, row, strict=True)) for row in result["rows"]]
    expected = [{"k": f"{door}:{row}", **row_of(row, lambda _, each: each.shown)} for row in range(ROWS)]
    assert [{name: row[name] for name in expected[0]} for row in found] == expected


CLAUSES = {
    "equality": "{c} = {v}",
    "reversed": "{v} = {c}",
    "list": "{c} IN ({v})",
    "list of two": "k LIKE '%' AND ({c} IN ({v}, {v}))",
    "range": "{c} >= {v} AND {c} <= {v}",
    "between": "{c} BETWEEN {v} AND {v}",
    "distinct": "{c} IS NOT DISTINCT FROM {v}",
    "qualified": "t.{c} = {v}",
}


def searches(kind: str) -> Iterator[tuple[int, str]]:
    """The place of each sample, and each literal for it."""
    for place, each in enumerate(SAMPLES[kind][1]):
        for literal in each.literals:
            yield place, literal


def keys_of(kind: str, place: int, doors: Sequence[str]) -> list[list[str]]:
    rows = [row for row in range(ROWS) if row % (len(SAMPLES[kind][1]) + 1) == place]
    return sorted([f"{door}:{row}"] for door in doors for row in rows)


def check_clauses(server: ServerProcess, table: str, kind: str, doors: Sequence[str]) -> None:
    column = NAMES[kind]
    cases = [(name, *case) for name in CLAUSES for case in searches(kind)]
    wheres = [CLAUSES[name].format(c=column, v=literal) for name, _, literal in cases]
    results = server.results("; ".join(f"SELECT k FROM {table} WHERE {where} ORDER BY k" for where in wheres))
    for (name, place, literal), result in zip(cases, results, strict=True):
        assert result["rows"] == keys_of(kind, place, doors), (name, literal)
    for place, each in enumerate(SAMPLES[kind][1]):
        value, expected = as_parameter(kind, each), keys_of(kind, place, doors)
        for where in (f"{column} = $1", f"$1 = {column}", f"{column} IN ($1)", f"{column} BETWEEN $1 AND $1"):
            found = server.sql(f"SELECT k FROM {table} WHERE {where} ORDER BY k", value)
            assert found == expected, (where, value)
        joined = f"FROM {table} a JOIN {table} b ON a.{column} = b.{column} WHERE b.k = '{expected[0][0]}'"
        assert server.sql(f"SELECT a.k {joined} ORDER BY a.k") == expected


@pytest.mark.parametrize("temperature", ["hot", "cold"])
@pytest.mark.parametrize("kind", SAMPLES)
async def test_what_went_in_finds_it(program: Program, namespace: str, kind: str, temperature: str) -> None:
    table, doors = f"{namespace}.t", ("json", "arrow", "literal", "set_parameter")
    program.server.sql(f"CREATE TABLE {table} ({COLUMNS})")
    for door in doors:
        await DOORS[door](program, table, door)
    if temperature == "cold":
        program.server.sql(f"FLUSH TABLE {table}")
    check_clauses(program.server, table, kind, doors)
    for place, literal in searches(kind):
        count = len(keys_of(kind, place, doors))
        [changed] = program.server.results(f"UPDATE {table} SET text_ = text_ WHERE {NAMES[kind]} = {literal}")
        assert changed["row_count"] == count, literal
    for place, each in enumerate(SAMPLES[kind][1]):
        [gone] = program.server.results(f"DELETE FROM {table} WHERE {NAMES[kind]} = {each.literals[-1]}")
        assert gone["row_count"] == len(keys_of(kind, place, doors))


KEYLESS = {TypeName.BOOLEAN, TypeName.FLOAT, TypeName.DOUBLE, TypeName.BLOB, TypeName.JSON}


@pytest.mark.parametrize("temperature", ["hot", "cold"])
@pytest.mark.parametrize("kind", [kind for kind in SAMPLES if kind not in KEYLESS])
def test_a_key_is_found_by_what_went_in(
    shared_server: ServerProcess, namespace: str, kind: str, temperature: str
) -> None:
    table, samples = f"{namespace}.t", SAMPLES[kind][1]
    shared_server.sql(f"CREATE TABLE {table} (v {kind} PRIMARY KEY, n INT)")
    rows = ", ".join(f"({each.literals[0]}, {place})" for place, each in enumerate(samples))
    shared_server.sql(
        f"INSERT INTO {table} VALUES {rows}" + (f"; FLUSH TABLE {table}" if temperature == "cold" else "")
    )
    for place, each in enumerate(samples):
        for literal in each.literals:
            assert shared_server.sql(f"SELECT n FROM {table} WHERE v = {literal}") == [[place]], literal
            assert shared_server.sql(f"UPDATE {table} SET n = n WHERE v = {literal} RETURNING n") == [[place]], literal
            conflict = f"INSERT INTO {table} VALUES ({literal}, {place}) ON CONFLICT (v) DO UPDATE SET n = excluded.n"
            assert shared_server.sql(f"{conflict} RETURNING n, v") == [[place, each.shown]], literal
        value = as_parameter(kind, each)
        assert shared_server.sql(f"SELECT n FROM {table} WHERE v = $1", value) == [[place]]
        assert shared_server.results(f"DELETE FROM {table} WHERE v = $1", value)[0]["row_count"] == 1


@pytest.mark.parametrize("kind", SAMPLES)
async def test_a_live_query_finds_what_went_in(program: Program, namespace: str, kind: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} ({COLUMNS})")
    await by_json(program, table, "json")
    cases = [*searches(kind)]
    async with connected(program.server.nats_url) as client:
        queries = [
            await subscribe(client, f"SELECT k FROM {table} WHERE {NAMES[kind]} = {literal}") for _, literal in cases
        ]
        for (place, literal), query in zip(cases, queries, strict=True):
            assert sorted([row["k"]] for row in query.rows) == keys_of(kind, place, ["json"]), literal
        await by_msgpack(program, table, "msgpack")
        for (place, literal), query in zip(cases, queries, strict=True):
            expected = keys_of(kind, place, ["msgpack"])
            changes = await query.wait_changes(len(expected))
            assert sorted([change["row"]["k"]] for change in changes) == expected, literal


REFUSED = {
    "boolean_": ("2", "'maybe'"),
    "bigint_": ("TRUE", "'1.5'"),
    "timestamp_": ("TRUE", "'yesterday'"),
    "date_": ("5", "'2024-02-30'"),
    "uuid_": ("5", "'g'"),
    "blob_": ("'not base64'",),
    "decimal_": ("TRUE", "'x'"),
    "json_": ("'{'",),
}


@pytest.mark.parametrize("column", REFUSED)
def test_what_an_insert_refuses_an_update_refuses(shared_server: ServerProcess, namespace: str, column: str) -> None:
    table = f"{namespace}.t"
    shared_server.sql(f"CREATE TABLE {table} ({COLUMNS}); INSERT INTO {table} (k) VALUES ('a')")
    for literal in REFUSED[column]:
        for statement in (
            f"INSERT INTO {table} (k, {column}) VALUES ('b', {literal})",
            f"INSERT INTO {table} (k, {column}) SELECT 'b', {literal}",
            f"UPDATE {table} SET {column} = {literal} WHERE k = 'a'",
            f"UPDATE {table} SET {column} = {literal}",
            f"INSERT INTO {table} (k) VALUES ('a') ON CONFLICT (k) DO UPDATE SET {column} = {literal}",
        ):
            with pytest.raises(Exception, match="invalid_value") as refused:
                shared_server.sql(statement)
            assert column in str(refused.value), statement


TAKEN = {
    "boolean_": {"'yes'": True, "'0'": False},
    "timestamp_": {"1704067200000": "2024-01-01T00:00:00.000000Z", "'2024-01-01'": "2024-01-01T00:00:00.000000Z"},
    "text_": {"5": "5", "TRUE": "true"},
    "bigint_": {"'7'": 7, "7.0": 7},
    "json_": {"5": 5, "TRUE": True},
}


@pytest.mark.parametrize("column", TAKEN)
def test_what_an_insert_takes_an_update_takes_alike(shared_server: ServerProcess, namespace: str, column: str) -> None:
    table = f"{namespace}.t"
    shared_server.sql(f"CREATE TABLE {table} ({COLUMNS}); INSERT INTO {table} (k) VALUES ('a')")
    for number, (literal, shown) in enumerate(TAKEN[column].items()):
        for place, statement in enumerate(
            (
                f"INSERT INTO {table} (k, {column}) VALUES ('{number}', {literal}) RETURNING {column}",
                f"INSERT INTO {table} (k, {column}) SELECT '{number}s', {literal} RETURNING {column}",
                f"UPDATE {table} SET {column} = {literal} WHERE k = 'a' RETURNING {column}",
                f"UPDATE {table} SET {column} = {literal} WHERE k = '{number}s' OR k = 'x' RETURNING {column}",
            )
        ):
            assert shared_server.sql(statement) == [[shown]], (place, literal)


async def test_a_csv_of_one_column_keeps_its_nulls(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (v TEXT)")
    body = b'v\na\n\n""\n\n'
    insert_file(program.server, table, "one.csv", body)
    assert program.server.sql(f"SELECT v FROM {table} ORDER BY _row_id") == [["a"], [None], [""], [None]]


async def test_two_columns_of_one_name_are_answered_in_every_format(program: Program, namespace: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY); INSERT INTO {table} VALUES (7)")
    sql = json.dumps({"sql": f"SELECT id, id, id + 1 AS id FROM {table}"}).encode()
    arrow = "application/vnd.apache.arrow.stream"
    answers: dict[str, bytes] = {}
    for accept in ("text/csv", arrow, "application/json"):
        status, _, answers[accept] = await program.post(sql, {"Accept": accept})
        assert status == 200, answers[accept]
    assert answers["text/csv"] == b'"id","id","id"\n7,7,8\n'
    found = pa.ipc.open_stream(answers[arrow]).read_all()
    assert (found.column_names, [column.to_pylist() for column in found.columns]) == (["id"] * 3, [[7], [7], [8]])
    assert json.loads(answers["application/json"])["results"][0]["rows"] == [[7, 7, 8]]


FINER = {
    "2024-01-01T00:00:00.0000004Z": "2024-01-01T00:00:00.000000Z",
    "2024-01-01T00:00:00.0000005Z": "2024-01-01T00:00:00.000001Z",
    "2024-01-01T00:00:00.0000014999Z": "2024-01-01T00:00:00.000001Z",
    "1969-12-31T23:59:59.9999995Z": "1970-01-01T00:00:00.000000Z",
    "2023-12-31T23:59:59.999999500+00:00": "2024-01-01T00:00:00.000000Z",
}


async def test_digits_beyond_microseconds_are_rounded_alike_at_every_door(program: Program, namespace: str) -> None:
    table, numbers = f"{namespace}.t", itertools.count()
    server = program.server
    server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, at TIMESTAMP)")
    for given, shown in FINER.items():
        keys = [next(numbers) for _ in range(9)]
        await program.insert(table, {"k": keys[0], "at": given})
        texts = pa.table({"k": [keys[1]], "at": [given]})
        await send(program, table, stream(texts), "application/vnd.apache.arrow.stream")
        instant = datetime.fromisoformat(given[:19] + "+00:00")
        nanoseconds = int((instant - EPOCH).total_seconds()) * 10**9 + int(
            given[20:].rstrip("Z").split("+")[0].ljust(9, "0")[:9]
        )
        exact = pa.table({"k": [keys[2]], "at": pa.array([nanoseconds]).cast(pa.timestamp("ns"))})
        await send(program, table, stream(exact), "application/vnd.apache.arrow.stream")
        insert_csv = f"k,at\n{keys[3]},{given}\n".encode()
        insert_file(server, table, "finer.csv", insert_csv)
        server.sql(f"INSERT INTO {table} VALUES ({keys[4]}, '{given}'), ({keys[5]}, $1)", given)
        server.sql(f"INSERT INTO {table} (k) VALUES ({keys[6]}); UPDATE {table} SET at = '{given}' WHERE k = {keys[6]}")
        server.sql(f"INSERT INTO {table} SELECT {keys[7]}, '{given}'")
        seconds, rest = divmod(nanoseconds, 10**9)
        await send(program, table, msgpack.packb({"k": keys[8], "at": msgpack.Timestamp(seconds, rest)}))
        found = server.sql(f"SELECT k, at FROM {table} WHERE at = '{given}' AND k >= {keys[0]} ORDER BY k")
        assert found == [[key, shown] for key in keys], given


@pytest.mark.parametrize("given", ["9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999995Z"])
async def test_what_rounds_beyond_the_year_9999_is_refused(program: Program, namespace: str, given: str) -> None:
    table = f"{namespace}.t"
    program.server.sql(f"CREATE TABLE {table} (k BIGINT PRIMARY KEY, at TIMESTAMP)")
    assert (await program.insert(table, {"k": 1, "at": given})).code == "invalid_value"
    assert (await program.ask_sql(f"INSERT INTO {table} VALUES (1, '{given}')")).code == "invalid_value"
    texts = stream(pa.table({"k": [1], "at": [given]}))
    headers = {"Content-Type": "application/vnd.apache.arrow.stream"}
    assert (await program.insert(table, texts, headers=headers)).code == "invalid_value"
