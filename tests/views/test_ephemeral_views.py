"""EPHEMERAL materialized views: asleep until somebody listens, filled for the first, asleep again behind the last."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from cli_process import environment
from live_subscriber import Refused, connected, subscribe
from nats.aio.client import Client
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed
from view_watching import standing

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
BY_GROUP = "SELECT g, count(*) AS n, sum(v) AS total FROM {}.t GROUP BY g"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose views sleep soon."""
    server = ServerProcess(tmp_path_factory.mktemp("ephemeral") / "data", environment={"KALAM_VIEW_IDLE_S": "1"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def view(shared_server: ServerProcess, namespace: str) -> str:
    """A view by groups over a table with five rows in two groups."""
    shared_server.sql(f"CREATE SHARED TABLE {namespace}.t (id BIGINT PRIMARY KEY, g TEXT NOT NULL, v BIGINT)")
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (1,'a',1), (2,'a',2), (3,'b',3), (4,'b',4), (5,'b',5)")
    shared_server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW {namespace}.v AS {BY_GROUP.format(namespace)}")
    return f"{namespace}.v"


def rows(server: ServerProcess, view: str) -> list[list[Any]]:
    return server.sql(f"SELECT g, n, total FROM {view} ORDER BY g")


def state(server: ServerProcess, view: str) -> str:
    return str(standing(server, view)["state"])


class Hearer:
    """A plain subscription to the changes of a view."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, dict[str, Any]]] = []

    async def take(self, msg: Any) -> None:
        self.heard.append((msg.subject, int(msg.headers["Kalam-Table"]), json.loads(msg.data)))

    @property
    def seqs(self) -> list[int]:
        return [body["seq"] + place for _, _, body in self.heard for place in range(len(body["rows"]))]


async def hear(client: Client, subject: str) -> Hearer:
    hearer = Hearer()
    await client.subscribe(subject, cb=hearer.take)
    await client.flush()
    return hearer


async def test_a_sleeping_view_is_read_by_its_query_and_keeps_nothing(
    shared_server: ServerProcess, view: str, namespace: str
) -> None:
    assert rows(shared_server, view) == [["a", 2, 3], ["b", 3, 12]]
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (6,'c',6)")
    assert rows(shared_server, view) == [["a", 2, 3], ["b", 3, 12], ["c", 1, 6]]
    assert shared_server.sql(f"SELECT count(*) FROM {view}") == [[3]]
    assert shared_server.sql(f"SELECT n, _deleted FROM {view} WHERE g = 'c'") == [[1, False]]
    assert state(shared_server, view) == "asleep"
    described = {name: value for _, name, value, _ in shared_server.sql(f"DESCRIBE TABLE {view}")}
    assert described["state"] == "asleep"
    assert "flush_policy" not in described
    assert shared_server.sql(f"SHOW CREATE TABLE {view}")[0][0].startswith("CREATE EPHEMERAL MATERIALIZED VIEW")
    for statement in (f"FLUSH TABLE {view}", f"INSERT INTO {view} VALUES ('x', 1, 1)", f"TRUNCATE TABLE {view}"):
        with pytest.raises(SqlFailed) as refused:
            shared_server.sql(statement)
        assert refused.value.code == "unsupported", statement


async def test_a_live_query_wakes_it_and_its_end_lets_it_sleep(
    shared_server: ServerProcess, view: str, namespace: str, wait_until: WaitUntil
) -> None:
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {view}")
        assert sorted((row["g"], row["n"], row["total"]) for row in live.rows) == [("a", 2, 3), ("b", 3, 12)]
        [ready] = live.of("ready")
        assert ready["seq"] == 0
        assert ready["table_id"] == live.answer["table_id"]
        assert state(shared_server, view) == "running"
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (6,'a',10)")
        [change] = await live.wait_changes(1)
        assert (change["op"], change["seq"], change["row"]["n"], change["old"]) == (
            "update",
            1,
            3,
            {"n": 2, "total": 3},
        )
        shared_server.sql(f"DELETE FROM {namespace}.t WHERE g = 'b'")
        assert [each["op"] for each in await live.wait_changes(2)] == ["update", "delete"]
        assert rows(shared_server, view) == [["a", 3, 13]]
        await live.close()
        await wait_until(lambda: state(shared_server, view) == "asleep")
        again = await subscribe(client, f"SELECT * FROM {view}")
        assert again.of("ready")[0]["seq"] == 0
        assert again.answer["table_id"] > live.answer["table_id"]
        with pytest.raises(Refused) as refused:
            await subscribe(client, f"SELECT * FROM {view}", from_seq=2, table_id=live.answer["table_id"])
        assert refused.value.code == "cursor_expired"


async def test_changes_go_to_whoever_subscribes_and_into_no_stream(
    shared_server: ServerProcess, view: str, namespace: str, wait_until: WaitUntil
) -> None:
    async with connected(shared_server.nats_url) as client:
        hearer = await hear(client, f"kalam.shared.{namespace}.v.>")
        await wait_until(lambda: state(shared_server, view) == "running")
        assert not hearer.heard  # the fill is told to nobody
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (6,'a',10), (7,'z',7)")
        await wait_until(lambda: len(hearer.seqs) == 2)
        assert hearer.seqs == [1, 2]
        assert {subject for subject, _, _ in hearer.heard} == {
            f"kalam.shared.{namespace}.v.{op}" for op in ("update", "insert")
        }
        changes = await client.jetstream().stream_info("KALAM-CHANGES", subjects_filter=f"kalam.shared.{namespace}.>")
        assert set(changes.state.subjects) == {f"kalam.shared.{namespace}.t.insert"}


@pytest.mark.parametrize("pattern", [">", "kalam.>", "kalam.shared.*.*.insert", "*.shared.{}.v.*"])
async def test_a_wider_subscription_is_a_listener(
    shared_server: ServerProcess, view: str, namespace: str, pattern: str, wait_until: WaitUntil
) -> None:
    async with connected(shared_server.nats_url) as client:
        await client.subscribe(pattern.format(namespace))
        await client.flush()
        await wait_until(lambda: state(shared_server, view) == "running")
    await wait_until(lambda: state(shared_server, view) == "asleep")


async def test_the_law_holds_while_it_is_awake(
    shared_server: ServerProcess, view: str, namespace: str, wait_until: WaitUntil
) -> None:
    """A mirror made of the snapshot and the changes is the SELECT, through flushes, deletes and a REFRESH."""
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {view}")
        for number in range(10, 60):
            shared_server.sql(f"INSERT INTO {namespace}.t VALUES ({number}, 'g{number % 7}', {number})")
            if number % 9 == 0:
                shared_server.sql(f"FLUSH TABLE {namespace}.t")
            if number % 5 == 0:
                shared_server.sql(f"DELETE FROM {namespace}.t WHERE id = {number - 3}")
            if number % 11 == 0:
                shared_server.sql(f"UPDATE {namespace}.t SET v = v * 2, g = 'a' WHERE id = {number - 1}")
            if number == 30:
                shared_server.sql(f"REFRESH MATERIALIZED VIEW {view}")
        truth = shared_server.sql(f"{BY_GROUP.format(namespace)} ORDER BY g")
        mirror = {row["g"]: [row["g"], row["n"], row["total"]] for row in live.rows}
        done = 0

        def follows() -> bool:
            nonlocal done
            for change in live.changes[done:]:
                row = change["row"]
                if change["op"] == "delete":
                    del mirror[row["g"]]
                else:
                    mirror[row["g"]] = [row["g"], row["n"], row["total"]]
                done += 1
            return sorted(mirror.values()) == truth

        await live.wait(follows)
        await wait_until(lambda: rows(shared_server, view) == truth)
        assert [change["seq"] for change in live.changes] == list(range(1, len(live.changes) + 1))


async def test_it_dies_with_the_server_and_sleeps_when_that_comes_back(
    start_kalam: Callable[..., ServerProcess], wait_until: WaitUntil
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE n; CREATE SHARED TABLE n.t (id BIGINT PRIMARY KEY, g TEXT NOT NULL, v BIGINT)")
    server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW n.v AS {BY_GROUP.format('n')}")
    server.sql("INSERT INTO n.t VALUES (1,'a',1)")
    async with connected(server.nats_url) as client:
        live = await subscribe(client, "SELECT * FROM n.v")
        server.sql("INSERT INTO n.t VALUES (2,'a',2)")
        await live.wait_changes(1)
        former = live.answer["table_id"]
        server.kill()
    server.restart()
    assert state(server, "n.v") == "asleep"
    assert rows(server, "n.v") == [["a", 2, 3]]
    async with connected(server.nats_url) as client:
        live = await subscribe(client, "SELECT * FROM n.v")
        assert [(row["g"], row["n"]) for row in live.rows] == [("a", 2)]
        assert live.answer["table_id"] > former
        server.sql("INSERT INTO n.t VALUES (3,'a',3)")
        assert (await live.wait_changes(1))[0]["seq"] == 1


async def test_a_listener_whose_connection_is_cut_counts_no_more(
    shared_server: ServerProcess, view: str, namespace: str, wait_until: WaitUntil
) -> None:
    client = await nats.connect(shared_server.nats_url, allow_reconnect=False)
    live = await subscribe(client, f"SELECT * FROM {view}")
    assert state(shared_server, view) == "running"
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr] # noqa: SLF001 - no UNSUB, no farewell
    await wait_until(lambda: state(shared_server, view) == "asleep")
    assert not any(live.id == each[0] for each in shared_server.sql("SHOW LIVE QUERIES"))


async def test_over_a_stream_it_begins_with_what_the_stream_holds(
    shared_server: ServerProcess, namespace: str, wait_until: WaitUntil
) -> None:
    shared_server.sql(f"CREATE STREAM TABLE {namespace}.s (g TEXT NOT NULL, v BIGINT)")
    shared_server.sql(f"INSERT INTO {namespace}.s VALUES ('a', 1), ('b', 2), ('a', 3)")
    view = f"{namespace}.w"
    shared_server.sql(
        f"CREATE EPHEMERAL MATERIALIZED VIEW {view} AS SELECT g, count(*) AS n FROM {namespace}.s GROUP BY g"
    )
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {view}")
        assert sorted((row["g"], row["n"]) for row in live.rows) == [("a", 2), ("b", 1)]
        shared_server.sql(f"INSERT INTO {namespace}.s VALUES ('b', 2)")
        [change] = await live.wait_changes(1)
        assert (change["seq"], change["row"]["n"]) == (1, 2)


@pytest.mark.parametrize(
    "select",
    [
        "SELECT id, v * 2 AS twice FROM {}.t WHERE g <> 'b'",
        "SELECT g, max(v) AS most, min(v) AS least, avg(v) AS mean FROM {}.t GROUP BY g",
        "SELECT g, id, CAST(row_number() OVER (PARTITION BY g ORDER BY v DESC) AS BIGINT) AS place FROM {}.t",
        "SELECT count(*) AS n FROM {}.t",
    ],
)
async def test_every_way_of_keeping(
    shared_server: ServerProcess, view: str, namespace: str, select: str, wait_until: WaitUntil
) -> None:
    name, text = f"{namespace}.k", select.format(namespace)
    key = " WITH (key = 'id')" if "row_number" in text else ""
    shared_server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW {name}{key} AS {text}")

    def same() -> bool:
        columns = ", ".join(column["name"] for column in shared_server.results(text)[-1]["columns"])
        return sorted(map(str, shared_server.sql(f"SELECT {columns} FROM {name}"))) == sorted(
            map(str, shared_server.sql(text))
        )

    assert same()
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {name}")
        assert len(live.rows) == shared_server.sql(f"SELECT count(*) FROM ({text}) AS s")[0][0]
        shared_server.sql(f"DELETE FROM {namespace}.t WHERE id = 2")
        shared_server.sql(f"UPDATE {namespace}.t SET v = -1 WHERE id = 5")
        shared_server.sql(f"FLUSH TABLE {namespace}.t")
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (9, 'a', 100)")
        await wait_until(same)
        assert state(shared_server, name) == "running"


async def test_alter_refresh_and_drop(
    shared_server: ServerProcess, view: str, namespace: str, wait_until: WaitUntil
) -> None:
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(f"ALTER MATERIALIZED VIEW {view} SET (flush_policy = 'rows:10')")
    assert refused.value.code == "invalid_option"
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(f"CREATE MATERIALIZED VIEW {namespace}.over AS SELECT g, n FROM {view}")
    assert refused.value.code == "unsupported"
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(f"DROP TABLE {namespace}.t")
    assert refused.value.code == "table_in_use"
    assert "filled anew" in shared_server.sql(f"REFRESH MATERIALIZED VIEW {view}")
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {view}")
        shared_server.sql(f"ALTER MATERIALIZED VIEW {view} SET (refresh = '0')")
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (6,'a',10)")
        assert (await live.wait_changes(1))[0]["seq"] == 1
        assert not live.of("closed")
        with pytest.raises(SqlFailed) as refused:
            shared_server.sql(f"DROP MATERIALIZED VIEW {view}")
        assert refused.value.code == "table_in_use"
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (7,'a',10)")
        await live.wait_changes(2)
        shared_server.sql(f"DROP MATERIALIZED VIEW {view} CASCADE")
        await live.wait(lambda: live.of("closed"))
    assert not shared_server.sql(f"SELECT * FROM system.views WHERE namespace = '{namespace}'")
    shared_server.sql(f"DROP TABLE {namespace}.t")


async def test_refreshes_that_are_asked_for_together_leave_one_that_keeps_it_up(
    shared_server: ServerProcess, view: str, namespace: str
) -> None:
    async with connected(shared_server.nats_url) as client:
        live = await subscribe(client, f"SELECT * FROM {view}")
        refresh = f"REFRESH MATERIALIZED VIEW {view}"
        answers = await asyncio.gather(*(asyncio.to_thread(shared_server.sql, refresh) for _ in range(4)))
        assert answers == 4 * [f"materialized view {view} filled anew"]
        shared_server.sql(f"TRUNCATE TABLE {namespace}.t")
        assert {change["op"] for change in await live.wait_changes(2)} == {"delete"}
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (9,'c',1)")
        assert len(await live.wait_changes(3)) == 3
    told = [line for line in shared_server.log_text().splitlines() if f"view={view}" in line]
    assert len([line for line in told if "truncated" in line]) == 1, "each that keeps it up says so"


async def test_many_listeners_share_one_waking(shared_server: ServerProcess, view: str, namespace: str) -> None:
    async with connected(shared_server.nats_url) as client:
        lives = await asyncio.gather(*(subscribe(client, f"SELECT * FROM {view}", user=f"u{n}") for n in range(5)))
        assert len({live.answer["table_id"] for live in lives}) == 1
        shared_server.sql(f"INSERT INTO {namespace}.t VALUES (6,'a',10)")
        async with asyncio.timeout(PATIENCE_S):
            assert len({json.dumps((await live.wait_changes(1))[0]) for live in lives}) == 1


def copied(data_dir: Path, copy: Path, other: Path) -> None:
    for command, folder in (("backup", data_dir), ("restore", other)):
        asked = [sys.executable, "-m", "kalam", command, str(copy), "--data-dir", str(folder)]
        subprocess.run(asked, check=True, capture_output=True, env=environment())


async def test_a_backup_has_the_view_and_not_its_rows(
    start_kalam: Callable[..., ServerProcess], tmp_path: Path, wait_until: WaitUntil
) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE n; CREATE SHARED TABLE n.t (id BIGINT PRIMARY KEY, g TEXT NOT NULL, v BIGINT)")
    server.sql(f"CREATE EPHEMERAL MATERIALIZED VIEW n.v AS {BY_GROUP.format('n')}")
    server.sql("INSERT INTO n.t VALUES (1,'a',1)")
    async with connected(server.nats_url) as client:
        await subscribe(client, "SELECT * FROM n.v")
        copied(server.data_dir, tmp_path / "copy", tmp_path / "other")
    other = ServerProcess(tmp_path / "other").start()
    try:
        assert state(other, "n.v") == "asleep"
        assert rows(other, "n.v") == [["a", 1, 1]]
    finally:
        other.stop()
