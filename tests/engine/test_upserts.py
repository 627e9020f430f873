"""INSERT … ON CONFLICT, and that statements are transactions, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from server_process import ServerProcess, SqlFailed

COUNTERS = "CREATE SHARED TABLE {0}.c (id TEXT PRIMARY KEY, n BIGINT NOT NULL DEFAULT 0, note TEXT)"


@pytest.fixture
def ns(shared_server: ServerProcess, request: pytest.FixtureRequest) -> str:
    name = f"u{abs(hash(request.node.name)) % 10**9}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    shared_server.sql(COUNTERS.format(name))
    return name


def rows(server: ServerProcess, ns: str) -> list[list[object]]:
    return list(server.sql(f"SELECT id, n, note FROM {ns}.c ORDER BY id"))


def test_do_nothing_skips_rows_that_are_there_and_inserts_the_others(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, 'old')")
    message = shared_server.sql(
        f"INSERT INTO {ns}.c VALUES ('a', 2, 'new'), ('b', 3, NULL), ('b', 4, NULL) ON CONFLICT (id) DO NOTHING"
    )
    assert message == "1 row inserted, 0 updated, 2 skipped"
    assert rows(shared_server, ns) == [["a", 1, "old"], ["b", 3, None]]


@pytest.mark.parametrize("flushed", [False, True])
def test_do_update_sees_the_old_row_by_bare_name_and_the_new_one_as_excluded(
    shared_server: ServerProcess, ns: str, flushed: bool
) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, 'old')")
    if flushed:
        shared_server.sql(f"FLUSH TABLE {ns}.c")
    returned = shared_server.sql(
        f"INSERT INTO {ns}.c VALUES ('b', 7, 'x'), ('a', 10, 'new') "
        "ON CONFLICT (id) DO UPDATE SET n = n + c.n + excluded.n + $1, note = note || '+' || excluded.note "
        "RETURNING id, n, note, _deleted",
        100,
    )
    assert returned == [["b", 7, "x", False], ["a", 112, "old+new", False]]
    assert rows(shared_server, ns) == [["a", 112, "old+new"], ["b", 7, "x"]]


TYPED = "b BOOLEAN, f FLOAT, d DOUBLE, n DECIMAL(10,2), x BLOB, t TIMESTAMP, y DATE, j JSON, u UUID, v VARCHAR(5)"
FORMER = "TRUE, 0.1, 1, 2, X'01', '2001-01-01', '2001-01-01', '[1]', NULL, 'v'"
PROPOSED = (
    "NULL, 0.7, CAST('NaN' AS DOUBLE), 12.5, X'00FF', '1960-01-01T00:00:00.000001Z', '2020-02-29', "
    "'{\"a\": 1}', '00000000-0000-0000-0000-00000000000a', 'é'"
)


def test_a_column_that_takes_the_proposed_value_gets_exactly_that(shared_server: ServerProcess, ns: str) -> None:
    names = [column.split()[0] for column in TYPED.replace("10,2", "").split(", ")]
    plain = ", ".join(f'{name} = EXCLUDED . "{name}"' for name in names)
    for table, assignments in (("looked_up", plain), ("planned", f"{plain}, extra = extra || ''")):
        shared_server.sql(f"CREATE TABLE {ns}.{table} (id INT PRIMARY KEY, {TYPED}, extra TEXT)")
        shared_server.sql(f"INSERT INTO {ns}.{table} VALUES (1, {FORMER}, 'kept')")
        upsert = f"INSERT INTO {ns}.{table} VALUES (1, {PROPOSED}, 'new') ON CONFLICT (id) DO UPDATE SET {assignments}"
        shared_server.sql(upsert)
    shown = [shared_server.sql(f"SELECT {', '.join(names)}, extra FROM {ns}.{t}") for t in ("looked_up", "planned")]
    assert shown[0] == shown[1]
    assert shown[0][0][2] == "NaN"
    assert shown[0][0][-1] == "kept"


@pytest.mark.parametrize("state", ["hot", "cold", "mixed"])
def test_many_keys_in_one_upsert_meet_rows_wherever_they_are(shared_server: ServerProcess, ns: str, state: str) -> None:
    values = ", ".join(f"('k{n:03}', {n}, 'old')" for n in range(200))
    shared_server.sql(f"INSERT INTO {ns}.c VALUES {values}")
    if state != "hot":
        shared_server.sql(f"FLUSH TABLE {ns}.c")
    if state == "mixed":
        shared_server.sql(f"UPDATE {ns}.c SET note = 'hot' WHERE n < 170; DELETE FROM {ns}.c WHERE n < 3")
    values = ", ".join(f"('k{n:03}', {n + 1000}, 'new')" for n in range(210))
    message = shared_server.sql(
        f"INSERT INTO {ns}.c VALUES {values} ON CONFLICT (id) DO UPDATE SET n = excluded.n, note = excluded.note"
    )
    gone = 3 if state == "mixed" else 0
    assert message == f"{10 + gone} rows inserted, {200 - gone} updated, 0 skipped"
    assert rows(shared_server, ns) == [[f"k{n:03}", n + 1000, "new"] for n in range(210)]


def test_a_deleted_row_is_no_conflict(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, 'old'); FLUSH TABLE {ns}.c; DELETE FROM {ns}.c")
    for flush in (False, True):
        if flush:
            shared_server.sql(f"DELETE FROM {ns}.c; FLUSH TABLE {ns}.c")
        shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 5, 'n') ON CONFLICT (id) DO UPDATE SET n = n + 1")
        assert rows(shared_server, ns) == [["a", 5, "n"]]


def test_an_insert_of_a_query_can_upsert_and_return(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c SELECT 'k' || CAST(value AS TEXT), value, NULL FROM range(1, 2001)")
    returned = shared_server.sql(
        f"INSERT INTO {ns}.c SELECT 'k' || CAST(value AS TEXT), 1, 'again' FROM range(1001, 3001) "
        "ON CONFLICT (id) DO UPDATE SET n = n + excluded.n RETURNING id, n"
    )
    assert len(returned) == 2000
    assert shared_server.sql(f"SELECT count(*), sum(n) FROM {ns}.c") == [[3000, 2001000 + 1000 + 1000]]


def test_an_upsert_is_published_as_updates_and_inserts(shared_server: ServerProcess, ns: str) -> None:
    assert shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, NULL) ON CONFLICT (id) DO NOTHING RETURNING n") == [
        [1]
    ]
    assert shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, NULL) ON CONFLICT (id) DO NOTHING RETURNING n") == []


@pytest.mark.parametrize(
    ("clause", "code"),
    [
        ("ON CONFLICT (n) DO NOTHING", "invalid_value"),
        ("ON CONFLICT (id) DO UPDATE SET id = 'b'", "unsupported"),
        ("ON CONFLICT (id) DO UPDATE SET nothing = 1", "column_not_found"),
        ("ON CONFLICT (id) DO UPDATE SET n = excluded.nothing", "column_not_found"),
        ("ON CONFLICT (id) DO UPDATE SET n = NULL", "not_null_violation"),
        ("ON CONFLICT (id) DO UPDATE SET n = $2", "invalid_value"),
    ],
)
def test_a_wrong_conflict_clause_stores_nothing(shared_server: ServerProcess, ns: str, clause: str, code: str) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, NULL)")
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"INSERT INTO {ns}.c VALUES ('z', 1, NULL), ('a', 2, NULL) {clause}")
    assert failed.value.code == code
    assert rows(shared_server, ns) == [["a", 1, None]]


def test_one_key_twice_in_an_upsert_is_refused(shared_server: ServerProcess, ns: str) -> None:
    with pytest.raises(SqlFailed, match="twice"):
        shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, ''), ('a', 2, '') ON CONFLICT (id) DO UPDATE SET n = 3")


def test_on_conflict_is_unsupported_on_a_stream_table(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE STREAM TABLE {ns}.s (x INT)")
    with pytest.raises(SqlFailed) as failed:
        shared_server.sql(f"INSERT INTO {ns}.s VALUES (1) ON CONFLICT DO NOTHING")
    assert failed.value.code == "unsupported"


def test_returning_of_update_and_delete_takes_expressions_aliases_and_sub_queries(
    shared_server: ServerProcess, ns: str
) -> None:
    shared_server.sql(f"INSERT INTO {ns}.c VALUES ('a', 1, 'x'), ('b', 2, 'y')")
    updated = shared_server.sql(
        f"UPDATE {ns}.c AS t SET n = t.n * 10 WHERE t.n > 1 "
        f"RETURNING t.id, n + $1 AS more, (SELECT count(*) FROM {ns}.c) AS rows",
        1,
    )
    assert updated == [["b", 21, 2]]
    assert shared_server.sql(f"DELETE FROM {ns}.c WHERE id = 'a' RETURNING *")[0][:3] == ["a", 1, "x"]


def test_a_delete_of_events_returns_them(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE STREAM TABLE {ns}.s (x INT)")
    shared_server.sql(f"INSERT INTO {ns}.s VALUES (1), (2), (3)")
    assert shared_server.sql(f"DELETE FROM {ns}.s WHERE x > 1 RETURNING x * 2 AS y") == [[4], [6]]


def test_plain_inserts_race_upserts_without_a_loss(shared_server: ServerProcess, ns: str) -> None:
    def upsert(number: int) -> None:
        shared_server.sql(f"INSERT INTO {ns}.c VALUES ('k{number}', 1, '') ON CONFLICT (id) DO UPDATE SET n = n + 1")

    def insert(number: int) -> None:
        with suppress(SqlFailed):  # a duplicate
            shared_server.sql(f"INSERT INTO {ns}.c VALUES ('k{number}', 1, '')")

    writers: list[Callable[[int], None]] = [upsert, upsert, insert]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(writer, number) for number in range(60) for writer in writers]
        for future in futures:
            future.result()
    counts = [n for _, n, _ in rows(shared_server, ns)]
    assert len(counts) == 60
    assert set(counts) <= {2, 3}, "two or three writers met each key, and each of them counts once"
