"""Live queries that group where users log in: each group is of rows that its subscriber may see, and of no others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from live_subscriber import Refused, Subscriber, subscribe
from policy_server import PolicyServer, policy_server

from kalam.rows.codec import Codec
from kalam.views.keeper import Keeper
from kalam.views.memory import MemoryRows
from kalam.views.wakings import Waking

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]
POLICIES = ["owner = CURRENT_USER()", "lower(owner) = CURRENT_USER()", "owner = CURRENT_USER() AND length(owner) < 9"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result(
            "admin",
            "CREATE NAMESPACE app; CREATE STREAM TABLE app.s (owner TEXT, v INT);"
            "CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT NOT NULL, g TEXT NOT NULL, v INT);"
            "CREATE USER TABLE app.own (id INT PRIMARY KEY, g TEXT NOT NULL);"
            "GRANT SELECT ON TABLE app.t TO ada, ben; GRANT ALL ON TABLE app.own TO ada, ben;"
            "GRANT SELECT ON TABLE app.s TO ada, ben",
        )
        yield server


def groups(live: Subscriber, key: str = "g") -> dict[Any, Any]:
    """The groups as the subscriber has them."""
    rows = {row[key]: row for row in live.rows}
    for change in live.changes:
        if change["op"] == "delete":
            del rows[change["row"][key]]
        else:
            rows[change["row"][key]] = change["row"]
    return {value: {name: row[name] for name in row if name != key} for value, row in rows.items()}


async def both(server: PolicyServer, sql: str) -> tuple[Subscriber, Subscriber]:
    return (
        await subscribe(await server.connect("ada"), sql, "ada"),
        await subscribe(await server.connect("ben"), sql, "ben"),
    )


async def secured(server: PolicyServer, table: str, policy: str) -> None:
    """A policy for ada and ben; the administrator sees and writes every row."""
    await server.policy(table, policy, to="ada, ben")
    await server.policy(table, "true", name="all", to="admin")
    await server.secure(table)


def shared(first: Subscriber, second: Subscriber) -> bool:
    return bool(first.answer["table_id"] == second.answer["table_id"])


async def test_groups_of_a_user_table_are_of_the_rows_of_who_asks(server: PolicyServer) -> None:
    await server.result("ada", "INSERT INTO app.own VALUES (1, 'x'), (2, 'x')")
    sql = "SELECT g, count(*) AS n, max(id) AS last FROM app.own GROUP BY g"
    of_ada, of_ben = await both(server, sql)
    assert not shared(of_ada, of_ben)
    assert (groups(of_ada), groups(of_ben)) == ({"x": {"n": 2, "last": 2}}, {})
    again = await subscribe(of_ada.client, f"{sql} -- once more", "ada")
    assert shared(of_ada, again)
    for number in range(3, 23):
        await server.result("ben" if number % 2 else "ada", f"INSERT INTO app.own VALUES ({number}, 'y{number % 4}')")
    await server.result("ada", "DELETE FROM app.own WHERE id = 22")
    await server.result("ben", "UPDATE app.own SET g = 'z' WHERE id = 21")
    expected = {user: await truth(server, user, sql) for user in ("ada", "ben")}
    assert expected["ada"].keys() == {"x", "y0", "y2"}
    assert expected["ben"].keys() == {"y1", "y3", "z"}
    await of_ada.wait(lambda: groups(of_ada) == expected["ada"])
    await of_ben.wait(lambda: groups(of_ben) == expected["ben"])
    await again.wait(lambda: groups(again) == expected["ada"])


async def truth(server: PolicyServer, user: str, sql: str) -> dict[Any, Any]:
    """What a SELECT gives a user, by its first column."""
    result = await server.result(user, sql)
    _, *names = [column["name"] for column in result["columns"]]
    return {first: dict(zip(names, rest, strict=True)) for first, *rest in result["rows"]}


@pytest.mark.parametrize("policy", POLICIES)
async def test_groups_are_of_the_rows_that_policies_leave(server: PolicyServer, policy: str) -> None:
    await secured(server, "app.t", policy)
    await server.result("admin", "INSERT INTO app.t VALUES (1,'ada','x',1), (2,'ben','x',20), (3,'eve','x',300)")
    asked = [  # of the first two each fails on a row of another's
        ("ada", "SELECT g, count(*) AS n, sum(1000 / (v - 20)) AS total, max(v) AS most FROM app.t GROUP BY g"),
        ("ben", "SELECT g, count(*) AS n, sum(1000 / (v - 1)) AS total, max(v) AS most FROM app.t GROUP BY g"),
        *((user, "SELECT id, owner, v FROM app.t ORDER BY v DESC LIMIT 2") for user in ("ada", "ben")),
        *((user, "SELECT g, count(*) AS n FROM app.t GROUP BY g") for user in ("ada", "ben")),
    ]
    clients = {user: await server.connect(user) for user in ("ada", "ben")}
    lives = [await subscribe(clients[user], sql, user) for user, sql in asked]
    assert len({live.answer["table_id"] for live in lives}) == len(lives)
    assert [row["most"] for live in lives[:2] for row in live.rows] == [1, 20]
    for statement in (
        "INSERT INTO app.t VALUES (4, 'ben', 'x', 20), (5, 'ada', 'x', 2), (6, 'eve', 'y', 20)",
        "UPDATE app.t SET v = v + 5 WHERE owner <> 'ben'",
        "UPDATE app.t SET owner = 'ben' WHERE id = 5",
        "UPDATE app.t SET owner = 'ada', v = 3 WHERE id = 4",
        "DELETE FROM app.t WHERE id IN (1, 3)",
        "UPDATE app.t SET g = 'z' WHERE id = 4",
        "INSERT INTO app.t VALUES (7, 'ada', 'z', 9), (8, 'ben', 'x', 40)",
    ):
        await server.result("admin", statement)
    for (user, sql), live in zip(asked, lives, strict=True):
        expected = await truth(server, user, sql)
        key = "id" if sql.startswith("SELECT id") else "g"
        await live.wait(lambda live=live, key=key, expected=expected: groups(live, key) == expected)
        assert "eve" not in str(live.messages)
        assert not live.of("closed")
    assert groups(lives[4]) == {"z": {"n": 2}}
    assert groups(lives[5]) == {"x": {"n": 3}}


async def test_events_that_policies_hide_are_not_counted(server: PolicyServer) -> None:
    await secured(server, "app.s", "owner = CURRENT_USER()")
    await server.result("admin", "INSERT INTO app.s VALUES ('ada', 1), ('ben', 2)")
    of_ada, of_ben = await both(server, "SELECT owner, count(*) AS n, sum(v) AS total FROM app.s GROUP BY owner")
    await server.result("admin", "INSERT INTO app.s VALUES ('ada', 10), ('ben', 20), ('eve', 30)")
    await of_ada.wait(lambda: groups(of_ada, "owner") == {"ada": {"n": 2, "total": 11}})
    await of_ben.wait(lambda: groups(of_ben, "owner") == {"ben": {"n": 2, "total": 22}})


async def test_who_may_see_the_same_shares_and_the_name_of_who_asks_is_theirs(server: PolicyServer) -> None:
    assert shared(*await both(server, "SELECT g, count(*) AS n FROM app.t GROUP BY g"))
    named = await both(server, "SELECT g, count(*) AS n FROM app.t WHERE owner = CURRENT_USER() GROUP BY g")
    assert not shared(*named)
    await server.result("admin", "INSERT INTO app.t VALUES (1, 'ada', 'x', 1), (2, 'ben', 'y', 1)")
    for live, group in zip(named, "xy", strict=True):
        assert [change["row"] for change in await live.wait_changes(1)] == [{"g": group, "n": 1}]


async def closed(live: Subscriber) -> str:
    await live.wait(lambda: live.of("closed"))
    return str(live.of("closed")[0]["reason"])


@pytest.mark.parametrize(
    "statement",
    [
        "REVOKE SELECT ON TABLE app.t FROM ada",
        "DROP USER ada",
        "CREATE POLICY more ON app.t USING (v = 1); ALTER TABLE app.t ENABLE ROW LEVEL SECURITY",
    ],
)
async def test_whoever_may_less_than_before_hears_no_more(server: PolicyServer, statement: str) -> None:
    of_ada, of_ben = await both(server, "SELECT g, count(*) AS n FROM app.t GROUP BY g")
    assert shared(of_ada, of_ben)
    await server.result("admin", statement)
    assert await closed(of_ada) == "permission"  # also where the connection ends
    await server.result("admin", "INSERT INTO app.t VALUES (1, 'ada', 'x', 1)")
    if "ENABLE" in statement:
        assert await closed(of_ben) == "permission"
    else:
        assert [change["row"] for change in await of_ben.wait_changes(1)] == [{"g": "x", "n": 1}]
    assert not of_ada.changes


async def test_a_join_ends_with_the_right_to_any_of_its_tables(server: PolicyServer) -> None:
    await server.result(
        "admin", "CREATE TABLE app.u (g TEXT PRIMARY KEY, said TEXT NOT NULL); GRANT SELECT ON TABLE app.u TO ada"
    )
    sql = "SELECT u.g AS g, count(*) AS n FROM app.t t JOIN app.u u ON t.g = u.g GROUP BY u.g"
    live = await subscribe(await server.connect("ada"), sql, "ada")
    with pytest.raises(Refused) as refused:
        await subscribe(await server.connect("ben"), sql, "ben")
    assert refused.value.code == "table_not_found"
    await server.result("admin", "INSERT INTO app.u VALUES ('x', 'hello'); INSERT INTO app.t VALUES (1, 'ada', 'x', 1)")
    await live.wait(lambda: groups(live) == {"x": {"n": 1}})
    await server.result("admin", "REVOKE SELECT ON TABLE app.u FROM ada")
    assert await closed(live) == "permission"


async def test_who_owns_one_of_the_tables_is_not_told_of_those_they_do_not_see(server: PolicyServer) -> None:
    await server.result(
        "admin", "CREATE TABLE app.secret (g TEXT PRIMARY KEY); GRANT SELECT ON TABLE app.secret TO ben"
    )
    await server.result("admin", "ALTER TABLE app.t OWNER TO ada")
    sql = "SELECT t.g AS g, count(*) AS n FROM app.t t JOIN app.secret s ON t.g = s.g GROUP BY t.g"
    live = await subscribe(await server.connect("ben"), sql, "ben")

    async def told(user: str) -> list[Any]:
        [row] = await server.rows(user, "SHOW LIVE QUERIES")
        return [row[1], row[2], row[3], row[10] is None]

    assert await told("ada") == ["ben", "app.t and 1 other", None, True]
    assert await told("ben") == await told("admin") == ["ben", "app.t, app.secret", sql, False]
    await server.result("admin", "GRANT SELECT ON TABLE app.secret TO ada")
    assert await told("ada") == ["ben", "app.t, app.secret", sql, False]
    await server.result("ada", f"KILL LIVE QUERY '{live.id}'")
    assert await closed(live) == "killed"


async def test_another_policy_ends_those_that_were_opened_under_the_former(server: PolicyServer) -> None:
    await secured(server, "app.t", "v < 5")
    await server.result("admin", "INSERT INTO app.t VALUES (1, 'ada', 'x', 1), (2, 'ben', 'x', 20)")
    of_ada, of_ben = await both(server, "SELECT g, count(*) AS n FROM app.t GROUP BY g")
    assert shared(of_ada, of_ben)
    assert groups(of_ada) == {"x": {"n": 1}}
    await server.policy("app.t", "v < 50", name="wide", to="ada")
    assert await closed(of_ada) == "permission"
    again = await subscribe(of_ada.client, "SELECT g, count(*) AS n FROM app.t GROUP BY g", "ada")
    assert groups(again) == {"x": {"n": 2}}
    await server.secure("app.t", on=False)
    assert await closed(again) == "permission"


async def test_administrators_see_each_and_others_their_own(server: PolicyServer) -> None:
    await both(server, "SELECT g, count(*) AS n FROM app.own GROUP BY g")
    seen = 'SELECT "user", "table", sql, kept FROM system.live_queries'
    assert sorted(row[0] for row in await server.rows("admin", seen)) == ["ada", "ben"]
    [[user, table, sql, kept]] = await server.rows("ada", seen)
    assert (user, table, sql) == ("ada", "app.own", "SELECT g, count(*) AS n FROM app.own GROUP BY g")
    assert '"live_queries":1' in kept


def remains() -> dict[str, int]:
    """The tasks of views, and what of views is in memory."""
    gc.collect()
    kinds = (Waking, MemoryRows, Keeper, Codec)
    found = {kind.__name__: 0 for kind in kinds}
    for each in gc.get_objects():
        if type(each) in kinds:
            found[type(each).__name__] += 1
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    return found | {"tasks": sum("view" in name or "live" in name for name in tasks)}


async def test_two_hundred_that_come_and_go_leave_nothing(server: PolicyServer, wait_until: WaitUntil) -> None:
    """By fours that share: closed, killed, and cut off while they are made."""
    shapes = (
        "SELECT g, count(*) AS n FROM app.t WHERE v > {} GROUP BY g",
        "SELECT id, v FROM app.t WHERE v > {} ORDER BY v DESC LIMIT 3",
        "SELECT g, count(*) AS n FROM app.own WHERE id > {} GROUP BY g",
        "SELECT owner, max(v) AS most FROM app.s WHERE v > {} GROUP BY owner",
    )
    client = await server.connect("ada")
    await server.result("admin", "INSERT INTO app.t VALUES (1000, 'ada', 'x', 1)")
    for shape in shapes:  # what is made once, for the first of its kind, is made
        await (await subscribe(client, shape.format(0), "ada")).close()
    await wait_until(lambda: remains()["Waking"] == 0)
    before = remains()
    for round_ in range(25):
        sqls = [shape.format(round_) for shape in shapes[round_ % 2 :: 2]] * 4
        opened = await asyncio.gather(*(subscribe(client, sql, "ada") for sql in sqls))
        if round_ % 5 == 0:
            assert remains()["Waking"] == 2
            await server.result("admin", f"INSERT INTO app.t VALUES ({round_}, 'ada', 'x', {round_ + 1})")
        for number, live in enumerate(opened):
            if number % 2:
                await live.close()
            else:
                await server.result("admin", f"KILL LIVE QUERY '{live.id}'")
    leaving = await server.connect("ada")
    asked = [asyncio.create_task(subscribe(leaving, shapes[0].format(100 + n), "ada")) for n in range(8)]
    await asyncio.sleep(0)
    await leaving.close()
    await asyncio.gather(*asked, return_exceptions=True)
    await wait_until(lambda: remains() == before)
    assert not await server.rows("admin", "SELECT id FROM system.live_queries")
