"""Live queries that group: a view without a name, shared by all who ask the same, ended with the last of them."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from live_subscriber import Refused, Subscriber, connected, subscribe
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed

import kalam.client

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
BY_GROUP = "SELECT g, count(*) AS n, sum(v) AS total FROM {}.t GROUP BY g"
VIEWS_MAX, VIEWS_PER_USER_MAX, GROUPS_MAX = 12, 8, 500


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small bounds."""
    bounds = {
        "KALAM_LIVE_VIEWS_MAX": str(VIEWS_MAX),
        "KALAM_LIVE_VIEWS_PER_USER_MAX": str(VIEWS_PER_USER_MAX),
        "KALAM_VIEW_GROUPS_MAX": str(GROUPS_MAX),
    }
    server = ServerProcess(tmp_path_factory.mktemp("nameless") / "data", environment=bounds)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_left(shared_server: ServerProcess) -> Iterator[None]:
    """What a test leaves open counts for its user until the server misses the client: the next one begins without."""
    yield
    end_live_queries(shared_server)


def end_live_queries(server: ServerProcess) -> None:
    for [query_id] in server.sql("SELECT id FROM system.live_queries"):
        with suppress(SqlFailed):  # it may end by itself meanwhile
            server.sql(f"KILL LIVE QUERY '{query_id}'")


@pytest.fixture
def table(shared_server: ServerProcess, namespace: str) -> str:
    """A table with five rows in two groups."""
    shared_server.sql(f"CREATE SHARED TABLE {namespace}.t (id BIGINT PRIMARY KEY, g TEXT NOT NULL, v INT)")
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (1,'a',1), (2,'a',2), (3,'b',3), (4,'b',4), (5,'b',5)")
    return f"{namespace}.t"


def kept(server: ServerProcess, namespace: str) -> list[dict[str, Any]]:
    """What is kept for the live queries that are open on tables of a namespace."""
    found = server.sql(
        f"SELECT kept FROM system.live_queries WHERE kept IS NOT NULL AND \"table\" LIKE '{namespace}.%'"
    )
    return [json.loads(text) for [text] in found]


class Mirror:
    """The groups as a subscriber has them, by the columns that tell them apart; each change has to fit them."""

    def __init__(self, live: Subscriber, key: Sequence[str] = ("g",)) -> None:
        self.live, self._key = live, key
        self._rows = {self._of(row): row for row in live.rows}
        assert len(self._rows) == len(live.rows)
        self._done = 0

    def _of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    def rows(self) -> list[list[Any]]:
        for change in self.live.changes[self._done :]:
            row, key = change["row"], self._of(change["row"])
            assert (key in self._rows) is (change["op"] != "insert"), change
            if change["op"] == "update":
                assert all(self._rows[key][name] == value for name, value in change["old"].items()), change
            if change["op"] == "delete":
                assert self._rows.pop(key) == row
            else:
                self._rows[key] = row
            self._done += 1
        return sorted(list(row.values()) for row in self._rows.values())


async def test_it_begins_with_the_groups_and_tells_each_change_of_one(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, BY_GROUP.format(namespace))
        assert [column["name"] for column in live.answer["columns"]] == ["g", "n", "total"]
        assert sorted((row["g"], row["n"], row["total"]) for row in live.rows) == [("a", 2, 3), ("b", 3, 12)]
        assert live.of("ready") == [{"type": "ready", "seq": 0, "table_id": live.answer["table_id"]}]
        shared_server.sql(f"INSERT INTO {table} VALUES (6,'a',10)")
        assert await live.wait_changes(1) == [
            {"op": "update", "seq": 1, "row": {"g": "a", "n": 3, "total": 13}, "old": {"n": 2, "total": 3}}
        ]
        shared_server.sql(f"DELETE FROM {table} WHERE g = 'b'")
        assert (await live.wait_changes(2))[1] == {"op": "delete", "seq": 2, "row": {"g": "b", "n": 3, "total": 12}}
        shared_server.sql(f"INSERT INTO {table} VALUES (7,'z',NULL)")
        assert (await live.wait_changes(3))[2] == {"op": "insert", "seq": 3, "row": {"g": "z", "n": 1, "total": None}}
        [told] = kept(shared_server, namespace)
        assert (told["state"], told["how"], told["rows"], told["live_queries"]) == ("running", "aggregating", 2, 1)
        assert [table, BY_GROUP.format(namespace)] in shared_server.sql('SELECT "table", sql FROM system.live_queries')


SHAPES = {
    BY_GROUP: ("g",),
    "SELECT g, v % 3 AS r, min(v) AS least, max(v) AS most, avg(v) AS mean FROM {}.t WHERE v > 5 GROUP BY 1, 2": (
        "g",
        "r",
    ),
    "SELECT count(*) AS n, sum(v) AS total, count(DISTINCT g) AS kinds FROM {}.t": (),
    "SELECT g, count(*) AS n FROM {}.t GROUP BY g HAVING count(*) > 3": ("g",),
    "SELECT DISTINCT g FROM {}.t": ("g",),
    "SELECT id, v FROM {}.t ORDER BY v DESC, id LIMIT 4": ("id",),
    "SELECT g, median(v) AS middle FROM {}.t GROUP BY g": ("g",),
}
"""What may be asked, and what tells the rows of the answer apart."""


async def test_every_shape_is_its_select_however_the_table_changes(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    dice = random.Random(7)
    async with connected(shared_server.nats_url) as client:
        asked = {sql.format(namespace): key for sql, key in SHAPES.items()}
        mirrors = {sql: Mirror(await subscribe(client, sql), key) for sql, key in asked.items()}
        for number in range(60):
            first = 100 + number * 10
            rows = ", ".join(f"({first + n}, 'g{dice.randrange(6)}', {dice.randrange(40)})" for n in range(10))
            shared_server.sql(f"INSERT INTO {table} VALUES {rows}")
            match number % 6:
                case 1:
                    shared_server.sql(f"DELETE FROM {table} WHERE v % 7 = {dice.randrange(7)}")
                case 2:
                    shared_server.sql(f"UPDATE {table} SET v = v + 1, g = 'g1' WHERE id % 5 = {dice.randrange(5)}")
                case 3:
                    shared_server.sql(f"FLUSH TABLE {table}")
            if number == 30:
                shared_server.sql(f"TRUNCATE TABLE {table}")
        for sql, mirror in mirrors.items():
            truth = sorted(list(row) for row in shared_server.sql(sql))
            await mirror.live.wait(lambda mirror=mirror, truth=truth: mirror.rows() == truth)
            seqs = [change["seq"] for change in mirror.live.changes]
            assert seqs == list(range(1, len(seqs) + 1)), sql


async def test_a_stream_is_counted_event_by_event(shared_server: ServerProcess, namespace: str) -> None:
    shared_server.sql(f"CREATE STREAM TABLE {namespace}.s (g TEXT, v BIGINT) WITH (MAX_BUFFER = 10)")
    shared_server.sql(f"INSERT INTO {namespace}.s VALUES ('a', 1), ('b', 2)")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT g, count(*) AS n, sum(v) AS total FROM {namespace}.s GROUP BY g")
        mirror = Mirror(live)
        for start in range(0, 200, 4):
            rows = ", ".join(f"('{'ab'[n % 2]}', {n})" for n in range(start, start + 4))
            shared_server.sql(f"INSERT INTO {namespace}.s VALUES {rows}")
        await live.wait(lambda: mirror.rows() == [["a", 101, 9901], ["b", 101, 10002]])


# Every door.


async def events(server: ServerProcess, sql: str, **asked: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Server-Sent Events of a live query, behind the head of the answer."""
    host, port = server.http_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = "/v1/live?" + urllib.parse.urlencode({"sql": sql, **asked})
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return reader, writer


async def next_event(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
    """The id and the data of the next event."""
    at = ""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            line = (await reader.readline()).decode().strip()
            if line.startswith("id: "):
                at = line[4:]
            elif line.startswith("data: "):
                return at, json.loads(line[6:])


async def test_server_sent_events_and_the_client_and_subscribe_to_share_one(
    shared_server: ServerProcess, table: str, namespace: str, wait_until: WaitUntil
) -> None:
    sql = BY_GROUP.format(namespace)
    reader, writer = await events(shared_server, sql)
    assert sorted(row["n"] for row in (await next_event(reader))[1]["rows"]) == [2, 3]
    at, ready = await next_event(reader)
    assert at == f"{ready['table_id']}-0"
    [[_, subject, table_id]] = shared_server.sql(f"SUBSCRIBE TO {sql} OPTIONS (last_rows = 1)")
    assert table_id == ready["table_id"]
    async with connected(shared_server.nats_url) as client, kalam.client.connect(shared_server.nats_url) as kalams:
        heard: list[dict[str, Any]] = []

        async def hear(msg: Any) -> None:
            heard.append(json.loads(msg.data))

        await client.subscribe(subject, cb=hear)
        rows = kalams.live(sql)
        begun = [await anext(rows), await anext(rows)]
        assert sorted((change.op, change.row["g"], change.row["n"]) for change in begun) == [
            ("snapshot", "a", 2),
            ("snapshot", "b", 3),
        ]
        shared_server.sql(f"INSERT INTO {table} VALUES (6, 'a', 1)")
        change = await anext(rows)
        assert (change.op, change.seq, change.row) == ("update", 1, {"g": "a", "n": 3, "total": 4})
        at, changes = await next_event(reader)
        while changes["type"] != "changes":
            at, changes = await next_event(reader)
        assert (at, changes["changes"][0]["row"]) == (f"{table_id}-1", {"g": "a", "n": 3, "total": 4})
        await wait_until(lambda: any(each["type"] == "changes" for each in heard))
        assert [len(each["rows"]) for each in heard if each["type"] == "snapshot"] == [1]
        assert [each["live_queries"] for each in kept(shared_server, namespace)] == [3, 3, 3]
        await rows.close()
    writer.close()


# Shared, and ended.


async def test_who_asks_the_same_at_the_same_time_has_one(
    shared_server: ServerProcess, table: str, namespace: str, wait_until: WaitUntil
) -> None:
    sql = BY_GROUP.format(namespace)
    same = [sql, sql.lower(), sql.replace(" ", "\n  ") + " -- the groups", sql.replace("g,", '"g",')]
    async with connected(shared_server.nats_url) as client:
        opened = await asyncio.gather(*(subscribe(client, text, user=f"u{n % 3}") for n, text in enumerate(same * 3)))
        ids = [live.answer["table_id"] for live in opened]
        quoted = ids[3::4]
        plain = [table_id for table_id in ids if table_id not in quoted]
        assert (len(set(plain)), len(set(quoted)), len(plain)) == (1, 1, 9)
        assert sorted(each["live_queries"] for each in kept(shared_server, namespace)) == [3] * 3 + [9] * 9
        shared_server.sql(f"INSERT INTO {table} VALUES (6, 'c', 6)")
        for live in opened:
            assert [change["row"]["g"] for change in await live.wait_changes(1)] == ["c"]
        for live in opened[1:]:
            await live.close()
        assert [each["live_queries"] for each in kept(shared_server, namespace)] == [1]
        shared_server.sql(f"INSERT INTO {table} VALUES (7, 'd', 7)")
        assert [change["row"]["g"] for change in await opened[0].wait_changes(2)] == ["c", "d"]
        await opened[0].close()
        assert not kept(shared_server, namespace)
        again = await subscribe(client, sql)
        assert again.answer["table_id"] > max(ids)
        assert again.of("ready")[0]["seq"] == 0


async def test_a_stalled_client_does_not_hold_up_another(
    shared_server: ServerProcess, namespace: str, wait_until: WaitUntil
) -> None:
    shared_server.sql(f"CREATE SHARED TABLE {namespace}.t (id BIGINT PRIMARY KEY, g TEXT NOT NULL, v BIGINT)")
    sql = f"SELECT g, count(*) AS n, max(v) AS most, repeat(g, 1000) AS pad FROM {namespace}.t GROUP BY g"
    reader, writer = await events(shared_server, sql)  # of which nothing more is read
    await next_event(reader)
    writer.transport.pause_reading()
    async with connected(shared_server.nats_url) as client:
        mirror = Mirror(await subscribe(client, sql))
        for number in range(60):
            rows = ", ".join(f"({number * 100 + n}, 'group {n}', {number})" for n in range(100))
            shared_server.sql(f"INSERT INTO {namespace}.t VALUES {rows}")
        truth = sorted(list(row) for row in shared_server.sql(sql))
        assert len(truth) == 100
        await mirror.live.wait(lambda: mirror.rows() == truth)
        assert not mirror.live.of("resync")
    writer.close()
    await wait_until(lambda: not kept(shared_server, namespace))


async def test_a_resume_goes_on_in_the_same_view_where_nothing_has_changed(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    sql = BY_GROUP.format(namespace)
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, sql)
        shared_server.sql(f"INSERT INTO {table} VALUES (6, 'a', 1)")
        await live.wait_changes(1)
        table_id = live.answer["table_id"]
        resumed = await subscribe(client, sql, from_seq=1, table_id=table_id)
        assert (resumed.rows, resumed.of("ready")[0]["seq"]) == ([], 1)
        shared_server.sql(f"INSERT INTO {table} VALUES (7, 'a', 1)")
        assert [change["seq"] for change in await resumed.wait_changes(1)] == [2]
        for asked in ({"from_seq": 1, "table_id": table_id}, {"from_seq": 2}, {"from_seq": 2, "table_id": 1}):
            with pytest.raises(Refused) as refused:
                await subscribe(client, sql, **asked)
            assert refused.value.code == "cursor_expired", asked
        await live.close()
        await resumed.close()
        with pytest.raises(Refused) as refused:
            await subscribe(client, sql, from_seq=2, table_id=table_id)
        assert refused.value.code == "cursor_expired"
    assert not kept(shared_server, namespace)


async def test_a_connection_that_is_cut_lets_go_of_it(
    shared_server: ServerProcess, table: str, namespace: str, wait_until: WaitUntil
) -> None:
    client = await nats.connect(shared_server.nats_url, allow_reconnect=False)
    await subscribe(client, BY_GROUP.format(namespace))
    assert len(kept(shared_server, namespace)) == 1
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr] # noqa: SLF001 - no UNSUB, no farewell
    await wait_until(lambda: not kept(shared_server, namespace))


# What becomes of its tables.


async def test_what_it_reads_is_not_dropped_under_it_and_ends_it_where_it_becomes_another(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    sql = BY_GROUP.format(namespace)
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, sql)
        for statement in (f"DROP TABLE {table}", f"ALTER TABLE {table} DROP COLUMN v"):
            with pytest.raises(SqlFailed) as refused:
                shared_server.sql(statement)
            assert refused.value.code == "table_in_use", statement
            assert live.id in str(refused.value), statement
        shared_server.sql(f"TRUNCATE TABLE {table}")
        assert sorted(change["op"] for change in await live.wait_changes(2)) == ["delete", "delete"]
        shared_server.sql(f"INSERT INTO {table} VALUES (1, 'a', 1)")
        assert (await live.wait_changes(3))[2]["row"] == {"g": "a", "n": 1, "total": 1}
        shared_server.sql(f"ALTER TABLE {table} ADD COLUMN more BIGINT")
        await live.wait(lambda: live.of("closed"))
        assert live.of("closed")[0]["reason"] == "the columns of the table have changed"
        live = await subscribe(client, sql)
        shared_server.sql(f"ALTER TABLE {table} ALTER COLUMN v TYPE BIGINT")
        await live.wait(lambda: live.of("closed"))
        live = await subscribe(client, sql)
        assert live.rows == [{"g": "a", "n": 1, "total": 1}]
        shared_server.sql(f"ALTER TABLE {table} RENAME TO others")
        await live.wait(lambda: live.of("closed"))
        live = await subscribe(client, sql.replace(".t", ".others"))
        shared_server.sql(f"DROP TABLE {namespace}.others CASCADE")
        await live.wait(lambda: live.of("closed"))
        assert live.of("closed")[0]["reason"] == "the table was dropped"
    assert not kept(shared_server, namespace)


async def test_it_can_be_killed(shared_server: ServerProcess, table: str, namespace: str) -> None:
    async with connected(shared_server.nats_url) as client:
        live, other = [await subscribe(client, BY_GROUP.format(namespace)) for _ in range(2)]
        shared_server.sql(f"KILL LIVE QUERY '{live.id}'")
        await live.wait(lambda: live.of("closed"))
        shared_server.sql(f"INSERT INTO {table} VALUES (6, 'a', 1)")
        assert await other.wait_changes(1)


# Bounds, and what is refused.


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT g, count(*) FROM {}.t GROUP BY g", "unsupported"),
        ("SELECT g, now() AS at, count(*) AS n FROM {}.t GROUP BY 1, 2", "unsupported"),
        ("SELECT g, count(*) AS n FROM {}.t WHERE _updated > '2026-01-01' GROUP BY g", "unsupported"),
        ("SELECT g, count(*) AS n FROM {}.t GROUP BY g LIMIT 3", "unsupported"),
        ("SELECT g, array_agg(v) AS vs FROM {}.t GROUP BY g", "unsupported"),
        ("SELECT g, count(*) AS n FROM {}.t WHERE v > $1 GROUP BY g", "unsupported"),
        ("SELECT v + 1 AS w FROM {}.t", "unsupported"),
        ("SELECT g FROM {}.t LIMIT 1", "unsupported"),
        ("SELECT namespace, count(*) AS n FROM system.views GROUP BY namespace", "unsupported"),
        ("SELECT a.id AS i, b.g AS h FROM {0}.t a JOIN {0}.t b ON a.id = b.v", "invalid_option"),
        ("SELECT g, count(*) AS n FROM {}.nothing GROUP BY g", "table_not_found"),
        ("SELECT nothing, count(*) AS n FROM {}.t GROUP BY nothing", "column_not_found"),
        ("SELECT g, count(*) AS n FROM {}.w GROUP BY g", "unsupported"),
        ("SELECT g, count(*) AS n FROM {}.m GROUP BY g", "unsupported"),
    ],
)
async def test_what_no_view_can_be_is_refused_and_leaves_nothing(
    shared_server: ServerProcess, table: str, namespace: str, sql: str, code: str
) -> None:
    shared_server.sql(f"CREATE VIEW {namespace}.w AS SELECT g FROM {table}")
    shared_server.sql(
        f"CREATE EPHEMERAL MATERIALIZED VIEW {namespace}.m AS SELECT g, count(*) AS n FROM {table} GROUP BY g"
    )
    async with connected(shared_server.nats_url) as client:
        with pytest.raises(Refused) as refused:
            await subscribe(client, sql.format(namespace))
        assert refused.value.code == code, refused.value
        with pytest.raises(SqlFailed) as failed:
            shared_server.sql(f"SUBSCRIBE TO {sql.format(namespace)}")
        assert failed.value.code == code
    assert not any(each[2].startswith(f"{namespace}.") for each in shared_server.sql("SHOW LIVE QUERIES"))


def test_what_is_refused_names_nothing_that_nobody_made(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    groups = f"SUBSCRIBE TO SELECT g, count(*) AS n FROM {table} GROUP BY g"
    for asked, told in (
        (f"{groups} OPTIONS (from_time = '2026-01-01')", "events of a STREAM table"),
        (groups.replace("count(*)", "string_agg(g, ',')"), "kept as a materialized view is"),
        (f"SUBSCRIBE TO SELECT v + 1 AS w FROM {table}", "or a SELECT that groups"),
    ):
        with pytest.raises(SqlFailed) as failed:
            shared_server.sql(asked)
        problem = str(failed.value.problem)
        assert told in problem
        assert f"{namespace}.live" not in problem


async def test_so_many_are_kept_of_one_user_and_of_all(
    shared_server: ServerProcess, table: str, wait_until: WaitUntil
) -> None:
    def other(number: int) -> str:
        return f"SELECT g, count(*) AS n FROM {table} WHERE v > {number} GROUP BY g"

    await wait_until(lambda: not shared_server.sql("SHOW LIVE QUERIES"))
    async with connected(shared_server.nats_url) as client:
        for number in range(VIEWS_PER_USER_MAX):
            await subscribe(client, other(number))
        with pytest.raises(Refused, match="live_views_per_user_max") as refused:
            await subscribe(client, other(100))
        assert refused.value.code == "too_busy"
        await subscribe(client, other(0))  # what one has already may be asked for again
        for number in range(VIEWS_MAX - VIEWS_PER_USER_MAX):
            await subscribe(client, other(200 + number), user="ben")
        with pytest.raises(Refused, match=r"live_views_max") as refused:
            await subscribe(client, other(300), user="ben")
        assert refused.value.code == "too_busy"
        shared = await subscribe(client, other(1), user="ben")
        assert shared.rows
    async with connected(shared_server.nats_url) as client:
        end_live_queries(shared_server)
        assert (await subscribe(client, other(100))).rows == []


async def test_one_that_has_too_many_groups_ends_and_says_so(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT id % 1000 AS g, count(*) AS n FROM {table} GROUP BY 1")
        shared_server.sql(f"INSERT INTO {table} SELECT value, 'x', 1 FROM range(1000, {1_001 + GROUPS_MAX})")
        await live.wait(lambda: live.of("closed"))
        assert "view_groups_max" in live.of("closed")[0]["reason"]
        with pytest.raises(Refused, match="view_groups_max"):
            await subscribe(client, f"SELECT id % 1000 AS g, count(*) AS n FROM {table} GROUP BY 1")
    assert not kept(shared_server, namespace)


async def test_the_groups_of_one_user_are_bounded_in_all_they_keep_together(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", environment={"KALAM_VIEW_GROUPS_MAX": "10"}).start()
    sql = "SELECT id, max(v) AS most FROM many.t WHERE id > {} GROUP BY id"
    try:
        async with connected(server.nats_url) as client:
            server.sql("CREATE NAMESPACE many; CREATE TABLE many.t (id INT PRIMARY KEY, v INT)")
            server.sql("INSERT INTO many.t VALUES (1, 1), (2, 2), (3, 3), (4, 4)")
            first = await subscribe(client, sql.format(0), "ada")
            again = await subscribe(client, sql.format(0), "ada")
            second = await subscribe(client, sql.format(-1), "ada")
            with pytest.raises(Refused, match="view_groups_max"):
                await subscribe(client, sql.format(-2), "ada")
            of_ben = await subscribe(client, sql.format(-2), "ben")
            assert [len(live.rows) for live in (first, again, second, of_ben)] == [4, 4, 4, 4]
            server.sql("INSERT INTO many.t VALUES (5, 5), (6, 6), (7, 7)")
            await of_ben.wait(lambda: len(of_ben.changes) == 3)
            await first.wait(lambda: first.of("closed") or second.of("closed"))
            assert "view_groups_max" in (first.of("closed") or second.of("closed"))[0]["reason"]
            assert not of_ben.of("closed")
    finally:
        server.kill()


async def test_one_whose_select_fails_ends_and_says_so(
    shared_server: ServerProcess, table: str, namespace: str
) -> None:
    sql = f"SELECT id, 10 / v AS tenth FROM {table} ORDER BY id DESC LIMIT 3"
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, sql)
        assert len(live.rows) == 3
        shared_server.sql(f"INSERT INTO {table} VALUES (9, 'z', 0)")
        await live.wait(lambda: live.of("closed"))
        assert "invalid_value" in live.of("closed")[0]["reason"]
        with pytest.raises(Refused) as refused:
            await subscribe(client, sql)
        assert refused.value.code == "invalid_value"
    assert not kept(shared_server, namespace)
