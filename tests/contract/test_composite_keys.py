"""sql.md and protocol.md where they speak of keys, for keys of several columns, at every door."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from foreign_program import Program
from live_subscriber import subscribe
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

CREATE = "CREATE {} TABLE {}.t (v INT, day DATE, sensor TEXT, n BIGINT, note TEXT, PRIMARY KEY (sensor, n, day))"
GIVEN = "(v, day, sensor, n)"
DAY, NEXT = "2026-03-01", "2026-03-02"


@pytest.fixture
def table(shared_server: ServerProcess, namespace: str) -> str:
    shared_server.sql(CREATE.format("SHARED", namespace))
    return f"{namespace}.t"


def rows(server: ServerProcess, table: str, user: str = "ann") -> list[Any]:
    return server.sql(f"SELECT sensor, n, day, v, note FROM {table} ORDER BY sensor, n, day", user=user)


def test_a_key_is_taken_only_by_all_of_its_columns(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    for state in ("hot", "cold"):
        sql(f"INSERT INTO {table} {GIVEN} VALUES (1, '{DAY}', $1, 1), (2, '{NEXT}', $1, 1), (3, '{DAY}', $1, 2)", state)
        with pytest.raises(SqlFailed, match=rf"has a row with \(sensor, n, day\) = \('{state}', 1, {DAY}\) already"):
            sql(f"INSERT INTO {table} {GIVEN} VALUES (9, '{NEXT}', 'free', 1), (9, '{DAY}', $1, 1)", state)
        with pytest.raises(SqlFailed, match=rf"\('twice', 1, {DAY}\) comes twice in this statement"):
            sql(f"INSERT INTO {table} {GIVEN} VALUES (9, '{DAY}', 'twice', 1), (9, '{DAY}', 'twice', 1)")
        with pytest.raises(SqlFailed, match="column n is BIGINT NOT NULL"):
            sql(f"INSERT INTO {table} (sensor, day) VALUES ('x', '{DAY}')")
        sql(f"FLUSH TABLE {table}")
    for state in ("hot", "cold"):
        with pytest.raises(SqlFailed) as refused:
            sql(f"INSERT INTO {table} {GIVEN} VALUES (9, '{DAY}', $1, 2)", state)
        assert refused.value.code == "duplicate_key"
    sql(f"DELETE FROM {table} WHERE sensor = 'hot' AND n = 1 AND day = '{DAY}'")
    sql(f"INSERT INTO {table} {GIVEN} VALUES (4, '{DAY}', 'hot', 1)")
    assert [row[3] for row in rows(shared_server, table)] == [1, 2, 3, 4, 2, 3]


def test_rows_are_read_and_changed_by_the_whole_key(shared_server: ServerProcess, namespace: str) -> None:
    sql, table = shared_server.sql, f"{namespace}.k"
    sql(f"CREATE USER TABLE {table} (b BIGINT, u UUID, a TEXT, v INT, PRIMARY KEY (a, b, u))", user="ann")
    one, two = (f"018f2b6e-7c1a-7e3d-9b1f-00000000000{n}" for n in (1, 2))
    sql(f"INSERT INTO {table} VALUES (1, $1, 'x', 1), (1, $2, 'x', 2), (2, $1, 'x', 3)", one, two, user="ann")
    sql(f"INSERT INTO {table} VALUES (1, $1, 'x', 9)", one, user="bob")
    by_key = f"SELECT v FROM {table} WHERE b = $1 AND a = 'x' AND $2 = u"
    for _ in ("hot", "cold"):
        assert sql(by_key, 1, two.upper(), user="ann") == [[2]]
        assert sql(by_key, 1, two, user="bob") == []
        assert sql(f"SELECT x.v AS w FROM {table} x WHERE x.u = '{one}' AND x.a = 'x' AND b = 2", user="ann") == [[3]]
        assert sql(f"SELECT v FROM {table} WHERE a = 'x' AND b = 1 AND a = 'x'", user="bob") == [[9]]
        assert sql(f"SELECT v FROM {table} WHERE a = 'x' AND b = 1 ORDER BY v", user="ann") == [[1], [2]]
        assert sql(f"SELECT v FROM {table} WHERE a = 'x' AND b = 1 AND u = '{one}' AND v = 5", user="ann") == []
        sql(f"FLUSH TABLE {table}", user="ann")
    assert sql(f"UPDATE {table} SET v = v + 10 WHERE a = 'x' AND b = 1 AND u = $1 RETURNING v", one, user="ann") == [
        [11]
    ]
    assert sql(f"DELETE FROM {table} WHERE a = 'x' AND b = 2 AND u = $1 RETURNING b, a", one, user="ann") == [[2, "x"]]
    with pytest.raises(SqlFailed, match=r"has a row with \(a, b, u\)"):
        sql(f"UPDATE {table} SET u = $1 WHERE a = 'x' AND b = 1 AND u = $2", one, two, user="ann")
    sql(f"UPDATE {table} SET b = b + 1 WHERE a = 'x'", user="ann")  # each takes what another leaves
    assert sql(f"SELECT b, v FROM {table} ORDER BY v", user="ann") == [[2, 2], [2, 11]]


def test_a_conflict_names_the_whole_key_in_any_order(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    sql(f"INSERT INTO {table} VALUES (1, '{DAY}', 's', 1, 'old'); FLUSH TABLE {table}")
    both = f"INSERT INTO {table} VALUES (5, '{DAY}', 's', 1, 'new'), (6, '{NEXT}', 's', 1, 'new') ON CONFLICT "
    assert sql(f"{both} (day, sensor, n) DO UPDATE SET v = t.v + excluded.v").startswith("1 row inserted, 1 updated")
    assert rows(shared_server, table) == [["s", 1, DAY, 6, "old"], ["s", 1, NEXT, 6, "new"]]
    assert sql(f"{both} DO NOTHING").startswith("0 rows inserted, 0 updated, 2 skipped")
    for named in ("sensor", "sensor, n", "sensor, n, v", "sensor, n, day, day"):
        with pytest.raises(SqlFailed, match=r"the key of table \S+ is \(sensor, n, day\)"):
            sql(f"{both} ({named}) DO NOTHING")
    with pytest.raises(SqlFailed, match=r"the key \(sensor, n, day\) cannot be set ON CONFLICT"):
        sql(f"{both} (sensor, n, day) DO UPDATE SET n = 3")


def test_what_describes_a_table_tells_of_its_key(shared_server: ServerProcess, table: str) -> None:
    sql = shared_server.sql
    described = {name: value for section, name, value, _ in sql(f"DESCRIBE TABLE {table}") if section == "column"}
    assert described["n"] == "BIGINT NOT NULL PRIMARY KEY (sensor, n, day)"
    assert described["v"] == "INT"
    [[statement]] = sql(f"SHOW CREATE TABLE {table}")
    assert "    note TEXT,\n    PRIMARY KEY (sensor, n, day)\n)" in statement
    sql(f"INSERT INTO {table} {GIVEN} VALUES (1, '{DAY}', 's', 1); FLUSH TABLE {table}")
    sql(f"ALTER TABLE {table} RENAME COLUMN n TO number; ALTER TABLE {table} ADD COLUMN n INT DEFAULT 7")
    with pytest.raises(SqlFailed, match="column number is part of the key"):
        sql(f"ALTER TABLE {table} DROP COLUMN number")
    with pytest.raises(SqlFailed) as refused:
        sql(f"INSERT INTO {table} (sensor, number, day) VALUES ('s', 1, '{DAY}')")
    assert refused.value.code == "duplicate_key"
    sql(f"UPDATE {table} SET n = 8 WHERE sensor = 's' AND number = 1; FLUSH TABLE {table}; COMPACT TABLE {table}")
    assert sql(f"SELECT number, n FROM {table}") == [[1, 8]]


@pytest.mark.parametrize("door", ["nats", "http"])
async def test_messages_meet_rows_by_the_whole_key(program: Program, table: str, door: str) -> None:
    def row(n: int, day: str = DAY, **more: Any) -> dict[str, Any]:
        return {"sensor": "s", "n": n, "day": day} | more

    async def send(payload: list[dict[str, Any]], **headers: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): word for name, word in headers.items()}
        if door == "nats":
            answer: dict[str, Any] = (await program.insert(table, payload, headers=named)).json
            return answer
        return await asyncio.to_thread(post, program.server, table, payload, named)

    assert (await send([row(1, v=1, note="a"), row(2, v=2)]))["rows"] == 2
    program.server.sql(f"FLUSH TABLE {table}")
    refused = await send([row(3), row(2)])
    assert refused["code"] == "duplicate_key"
    assert f"(sensor, n, day) = ('s', 2, {DAY})" in refused["detail"]
    assert (await send([row(1, v=5), row(1, NEXT, v=6), row(1, v=7)], Kalam_On_Conflict="update"))["updated"] == 1
    assert (await send([row(2, v=9), row(3, v=3), row(3, v=4)], Kalam_On_Conflict="nothing"))["skipped"] == 2
    skipping = await send([row(4, v=4), row(3, v=0), row(4, v=0), {"n": 1, "day": DAY}], Kalam_On_Invalid="skip")
    codes = [(error["row"], error["code"]) for error in skipping["errors"]]
    assert codes == [(2, "duplicate_key"), (3, "duplicate_key"), (4, "not_null_violation")]
    assert rows(program.server, table) == [
        ["s", 1, DAY, 7, "a"],
        ["s", 1, NEXT, 6, None],
        ["s", 2, DAY, 2, None],
        ["s", 3, DAY, 3, None],
        ["s", 4, DAY, 4, None],
    ]


def post(server: ServerProcess, table: str, payload: object, headers: dict[str, str]) -> Any:
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=PATIENCE_S)
    try:
        path = f"/v1/tables/{table.replace('.', '/')}/rows"
        connection.request("POST", path, json.dumps(payload), {"Content-Type": "application/json", **headers})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
async def test_changes_are_told_live_and_in_the_feed_with_the_keys_columns(
    program: Program, namespace: str, kind: str
) -> None:
    server, table = program.server, f"{namespace}.t"
    server.sql(f"{CREATE.format(kind, namespace)} WITH (subject_key = 'sensor')")
    server.sql(
        f"INSERT INTO {table} {GIVEN} VALUES (1, '{DAY}', 'a', 1), (2, '{DAY}', 'a', 2); FLUSH TABLE {table}",
        user="ann",
    )
    whose = "user.ann" if kind == "USER" else "shared"
    heard = await program.listen(f"kalam.{whose}.{table}.>")
    live = await subscribe(program.broker, f"SELECT sensor, n, v FROM {table} WHERE v < 9", user="ann")
    assert sorted(row["n"] for row in live.rows) == [1, 2]
    by_key = f"WHERE sensor = 'a' AND n = 1 AND day = '{DAY}'"
    server.sql(f"UPDATE {table} SET v = 5 {by_key}", user="ann")
    server.sql(f"UPDATE {table} SET sensor = 'b' {by_key}", user="ann")
    server.sql(f"DELETE FROM {table} WHERE n = 2", user="ann")
    expected = [
        {"op": "update", "seq": 3, "row": {"sensor": "a", "n": 1, "v": 5}, "old": {"v": 1}},
        {"op": "delete", "seq": 4, "row": {"sensor": "a", "n": 1, "v": 5}},
        {"op": "insert", "seq": 5, "row": {"sensor": "b", "n": 1, "v": 5}},
        {"op": "delete", "seq": 6, "row": {"sensor": "a", "n": 2, "v": 2}},
    ]
    assert await live.wait_changes(4) == expected
    told = [await heard() for _ in expected]
    assert [answer.subject.removeprefix(f"kalam.{whose}.{table}.") for answer in told] == [
        "update.a",
        "delete.a",
        "insert.b",
        "delete.a",
    ]
    keys = [[row[name] for name in ("sensor", "n", "day")] for answer in told for row in answer.json["rows"]]
    assert keys == [["a", 1, DAY], ["a", 1, DAY], ["b", 1, DAY], ["a", 2, DAY]]
    server.sql(f"FLUSH TABLE {table}")
    text = f"SELECT sensor, n, v FROM {table} WHERE v < 9"
    again = await subscribe(program.broker, text, user="ann", from_seq=3, table_id=live.answer["table_id"])
    assert await again.wait_changes(3) == expected[1:]
    assert (await subscribe(program.broker, text, user="ann")).rows == [{"sensor": "b", "n": 1, "v": 5}]
