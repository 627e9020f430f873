"""What other engines read of a table is what SELECT saw at its last flush."""

from __future__ import annotations

import random
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from lake_readers import READERS, lake_of, rows_of, selected
from lake_values import KEYS, VALUES
from server_process import ServerProcess

from kalam.rows.column_rows import is_columns
from kalam.rows.door import ARROW_STREAM

QUIET = {
    "KALAM_ICEBERG_INTERVAL_S": "86400",  # commits when told to
    "KALAM_COMPACTION_SEGMENTS_MIN": "1000000",
    "KALAM_COMPACTION_OVERRIDES_PERCENT": "1000000",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server in a folder whose name has a blank."""
    server = ServerProcess(tmp_path_factory.mktemp("lake") / "da ta", environment=QUIET).start()
    server.sql("CREATE NAMESPACE n")
    yield server
    server.kill()


def compare(server: ServerProcess, name: str, key: str = "id", *, expected: object = None) -> None:
    """Every engine reads what SELECT shows; nothing may be hot."""
    seen = selected(server, f"SELECT * FROM {name}") if expected is None else expected
    wanted = rows_of(seen, seen.schema, key)
    for engine, read in READERS.items():
        assert rows_of(read(lake_of(server, name)), seen.schema, key) == wanted, engine


def refresh(server: ServerProcess, name: str) -> list[object]:
    [row] = server.sql(f"REFRESH LAKE FOR TABLE {name}")
    assert row[-2:] == [0.0, None]
    return row


@pytest.mark.parametrize("kind", KEYS)
def test_every_type_and_key_is_read_as_it_is_selected(server: ServerProcess, kind: str) -> None:
    name, key = f"n.k{list(KEYS).index(kind)}", KEYS[kind]
    rng = random.Random(kind)
    server.sql(f"CREATE TABLE {name} (id {kind} PRIMARY KEY, {', '.join(VALUES)})")

    def insert(numbers: list[int]) -> None:
        rows = [", ".join([key(n), *(rng.choice([*own, "NULL"]) for own in VALUES.values())]) for n in numbers]
        server.sql(f"INSERT INTO {name} VALUES {', '.join(f'({row})' for row in rows)}")

    insert(list(range(40)))
    server.sql(f"FLUSH TABLE {name}")
    insert(list(range(40, 60)))
    server.sql(f"UPDATE {name} SET words = 'new', small = 7 WHERE id IN ({key(3)}, {key(50)}, {key(41)})")
    server.sql(f"DELETE FROM {name} WHERE id IN ({key(4)}, {key(51)})")
    server.sql(f"FLUSH TABLE {name}")
    refresh(server, name)
    compare(server, name)
    flushed = selected(server, f"SELECT * FROM {name}")
    insert([4])
    server.sql(f"UPDATE {name} SET words = 'hot' WHERE id = {key(5)}")
    refresh(server, name)
    compare(server, name, expected=flushed)
    server.sql(f"FLUSH TABLE {name}; COMPACT TABLE {name}")
    assert refresh(server, name)[4] == 59
    compare(server, name)


def load(server: ServerProcess, name: str, rows: pa.Table) -> None:
    """Insert rows that stay columns in the log, as a file of them does."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    url, headers = f"{server.http_url}/v1/tables/{name.replace('.', '/')}/rows", {"Content-Type": ARROW_STREAM}
    with urllib.request.urlopen(urllib.request.Request(url, sink.getvalue().to_pybytes(), headers)):
        pass
    with closing(sqlite3.connect(f"file:{server.data_dir / 'kalam.db'}?mode=ro", uri=True)) as database:
        hot = database.execute("SELECT payload FROM log WHERE flushed = 0 AND op = 'insert'").fetchall()
    assert hot
    assert all(is_columns(payload) for [payload] in hot)


def rows_to_load(server: ServerProcess, ids: list[int]) -> pa.Table:
    """A value of each type and NULLs for each of these ids, in the types that the server gives them."""
    declared = ", ".join(VALUES)
    server.sql(f"CREATE TABLE IF NOT EXISTS n.pattern (id BIGINT PRIMARY KEY, {declared})")
    if not server.sql("SELECT id FROM n.pattern LIMIT 1"):
        rng = random.Random(7)
        rows = [", ".join([str(n), *(rng.choice([*own, "NULL"]) for own in VALUES.values())]) for n in range(50)]
        server.sql(f"INSERT INTO n.pattern VALUES {', '.join(f'({row})' for row in rows)}; FLUSH TABLE n.pattern")
    pattern = selected(server, f"SELECT {', '.join(column.split()[0] for column in VALUES)} FROM n.pattern ORDER BY id")
    return pattern.take([number % 50 for number in ids]).add_column(0, "id", pa.array(ids, pa.int64()))


@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_a_table_that_was_loaded_as_columns_is_read_as_it_is_selected(server: ServerProcess, order: str) -> None:
    name, ids = f"n.loaded_{order}", list(range(5_000))
    if order == "mixed":
        random.Random(3).shuffle(ids)
    server.sql(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, {', '.join(VALUES)}) WITH (flush_policy = 'rows:1000000')")

    def check(ids: set[int], **changed: Any) -> None:
        assert refresh(server, name)[4] == len(ids)
        compare(server, name)
        wanted = rows_to_load(server, sorted(ids)).to_pylist()
        seen = selected(server, f"SELECT * FROM {name} ORDER BY id").to_pylist()
        texts = [(row["id"], changed.get(f"words_{row['id']}", row["words"]), row["body"]) for row in wanted]
        assert [(row["id"], row["words"], row["body"]) for row in seen] == texts

    load(server, name, rows_to_load(server, ids[:2_500]))
    server.sql(f"FLUSH TABLE {name}")
    check(set(ids[:2_500]))
    cold, hot = ids[7], ids[3_000]
    load(server, name, rows_to_load(server, ids[2_500:]))
    server.sql(f"UPDATE {name} SET words = 'new' WHERE id IN ({cold}, {hot})")
    gone = {*ids[100:1_300], *ids[4_000:4_010]}
    server.sql(f"DELETE FROM {name} WHERE id IN ({', '.join(map(str, gone))}); FLUSH TABLE {name}")
    words = {f"words_{cold}": "new", f"words_{hot}": "new"}
    check(set(ids) - gone, **words)
    load(server, name, rows_to_load(server, ids[100:1_300]))  # rows that were deleted are there again
    server.sql(f"FLUSH TABLE {name}")
    check(set(ids) - set(ids[4_000:4_010]), **words)
    server.sql(f"COMPACT TABLE {name}")
    check(set(ids) - set(ids[4_000:4_010]), **words)


def test_a_key_of_several_columns_hides_rows_by_all_of_them(server: ServerProcess) -> None:
    sql = server.sql
    sql("CREATE TABLE n.several (number INT, day DATE, place TEXT, v TEXT, PRIMARY KEY (place, day))")
    days = [f"2026-03-0{day}" for day in (1, 2, 3, 4)]
    rows = [f"({number}, '{day}', '{place}', 'old')" for number, (day, place) in enumerate(product(days, "abc"))]
    sql(f"INSERT INTO n.several VALUES {', '.join(rows)}; FLUSH TABLE n.several")
    sql(f"UPDATE n.several SET v = 'new' WHERE place = 'a' AND day = '{days[1]}'")
    sql(f"DELETE FROM n.several WHERE place = 'b' AND day IN ('{days[1]}', '{days[2]}')")
    sql(f"UPDATE n.several SET place = 'd' WHERE place = 'c' AND day = '{days[3]}'; FLUSH TABLE n.several")
    refresh(server, "n.several")
    compare(server, "n.several", "number")
    sql("ALTER TABLE n.several RENAME COLUMN place TO at")
    sql(f"INSERT INTO n.several VALUES (50, '{days[0]}', 'd', 'more'), (51, '{days[1]}', 'b', 'again')")
    sql("UPDATE n.several SET v = 'newer' WHERE at = 'd'; FLUSH TABLE n.several")
    assert refresh(server, "n.several")[4] == 12
    compare(server, "n.several", "number")
    sql("COMPACT TABLE n.several")
    assert refresh(server, "n.several")[4] == 12
    compare(server, "n.several", "number")


def test_a_users_rows_are_a_partition(server: ServerProcess) -> None:
    server.sql("CREATE USER TABLE n.u (id INT PRIMARY KEY, v TEXT)")
    for user in ("ann", "Bob-2"):
        server.sql("INSERT INTO n.u VALUES (1, 'a'), (2, 'b')", user=user)
    server.sql("FLUSH TABLE n.u")
    server.sql("UPDATE n.u SET v = 'c' WHERE id = 2; DELETE FROM n.u WHERE id = 1; FLUSH TABLE n.u", user="ann")
    assert refresh(server, "n.u")[3:5] == [None, 3]
    for engine, read in READERS.items():
        rows = sorted(map(tuple, read(lake_of(server, "n.u")).select(["user_id", "id", "v"]).to_pandas().values))
        assert rows == [("Bob-2", 1, "a"), ("Bob-2", 2, "b"), ("ann", 2, "c")], engine


def test_a_column_called_user_id_keeps_its_name(server: ServerProcess) -> None:
    server.sql("CREATE USER TABLE n.v (id INT PRIMARY KEY, user_id TEXT); INSERT INTO n.v VALUES (1, 'x')")
    server.sql("FLUSH TABLE n.v")
    refresh(server, "n.v")
    for engine, read in READERS.items():
        assert read(lake_of(server, "n.v")).select(["user_id", "_user_id"]).to_pylist() == [
            {"user_id": "x", "_user_id": "admin"}
        ], engine


def test_altered_columns_are_those_that_they_were(server: ServerProcess) -> None:
    sql = server.sql
    sql("CREATE TABLE n.a (id INT PRIMARY KEY, a INT, b TEXT)")
    sql("INSERT INTO n.a VALUES (1, 10, 'old'), (2, 20, 'old'); FLUSH TABLE n.a")
    alterations = (
        "RENAME COLUMN a TO c",
        "ADD COLUMN d INT",
        "DROP COLUMN b",
        "ADD COLUMN b TEXT",  # another one
        "RENAME COLUMN c TO a",
        "ADD COLUMN e INT DEFAULT 5",
        "RENAME COLUMN id TO key",
        "ADD COLUMN id TEXT DEFAULT 'filled'",
    )
    for number, alteration in enumerate(alterations, 10):
        sql(f"ALTER TABLE n.a {alteration}")
        key = "key" if number >= 16 else "id"
        refresh(server, "n.a")
        compare(server, "n.a", key)
        sql(f"INSERT INTO n.a ({key}) VALUES ({number}); FLUSH TABLE n.a")
        refresh(server, "n.a")
        compare(server, "n.a", key)
    sql("COMPACT TABLE n.a")
    refresh(server, "n.a")
    compare(server, "n.a", "key")


def test_columns_of_wider_types_are_read_as_they_are_selected(server: ServerProcess) -> None:
    sql = server.sql
    sql("CREATE TABLE n.wide (id INT PRIMARY KEY, s SMALLINT, i INT, f FLOAT, d DECIMAL(6,2))")
    sql("INSERT INTO n.wide VALUES (1, 1, 10, 0.1, 1.25), (2, NULL, NULL, NULL, NULL); FLUSH TABLE n.wide")
    refresh(server, "n.wide")
    for column, kind in (
        ("id", "BIGINT"),
        ("s", "INT"),
        ("i", "DECIMAL(14,3)"),
        ("f", "DOUBLE"),
        ("d", "DECIMAL(9,4)"),
    ):
        sql(f"ALTER TABLE n.wide ALTER COLUMN {column} TYPE {kind}")
        refresh(server, "n.wide")
        compare(server, "n.wide")
    sql("INSERT INTO n.wide VALUES (5000000000, 70000, 10.001, 0.1, 1.0001); FLUSH TABLE n.wide")
    sql("ALTER TABLE n.wide RENAME TO wider")
    refresh(server, "n.wider")
    compare(server, "n.wide", expected=selected(server, "SELECT * FROM n.wider"))  # it stays in its folder


def test_a_truncated_table_has_no_rows_and_then_the_new_ones(server: ServerProcess) -> None:
    sql = server.sql
    sql("CREATE TABLE n.emptied (id INT PRIMARY KEY, v TEXT); INSERT INTO n.emptied VALUES (1, 'a'), (2, 'b')")
    sql("FLUSH TABLE n.emptied; DELETE FROM n.emptied WHERE id = 1; FLUSH TABLE n.emptied")
    refresh(server, "n.emptied")
    sql("TRUNCATE n.emptied")
    refresh(server, "n.emptied")
    compare(server, "n.emptied")
    sql("INSERT INTO n.emptied VALUES (2, 'new'); FLUSH TABLE n.emptied")
    refresh(server, "n.emptied")
    compare(server, "n.emptied")
