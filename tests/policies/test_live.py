"""Live queries under policies: snapshots, changes, resumes and replays show what the policies leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_subscriber import Refused, Subscriber, ask, subscribe
from policy_server import PolicyServer, policy_server

FORMS = ["owner = CURRENT_USER()", "lower(owner) = CURRENT_USER()", "owner = CURRENT_USER() AND length(secret) < 9"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result("admin", "CREATE NAMESPACE app")
        yield server


def told(subscriber: Subscriber) -> list[tuple[str, int, Any]]:
    return [(change["op"], change["row"]["id"], change["row"]["secret"]) for change in subscriber.changes]


@pytest.mark.parametrize("number", range(len(FORMS)))
async def test_a_live_query_shows_what_the_policies_leave_of_old_and_new_rows(
    server: PolicyServer, number: int
) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, secret TEXT); GRANT ALL ON TABLE app.t TO ada, ben;"
        "INSERT INTO app.t VALUES (1, 'ada', '1'), (2, 'ben', 'hush'), (3, NULL, 'hush')",
    )
    await server.policy("app.t", FORMS[number])
    await server.policy("app.t", "true", name="all", to="admin")
    await server.secure("app.t")
    client = await server.connect("ada")
    plain = await subscribe(client, "SELECT * FROM app.t")
    # A WHERE that fails on each row of another's, and one that only a value decides.
    cast = await subscribe(client, "SELECT * FROM app.t WHERE CAST(secret AS INT) > 0")
    pinned = await subscribe(client, "SELECT * FROM app.t WHERE id IN (2, 5)")
    hidden = await subscribe(await server.connect("ben"), "SELECT id, secret FROM app.t WHERE owner = 'ada'", "ben")
    assert [row["id"] for row in plain.rows] == [row["id"] for row in cast.rows] == [1]
    assert pinned.rows == hidden.rows == []
    for statement in (
        "INSERT INTO app.t VALUES (4, 'ben', 'hush'), (5, 'ada', '5'), (6, NULL, 'hush')",
        "UPDATE app.t SET secret = secret || '0' WHERE id IN (1, 2, 3)",
        "UPDATE app.t SET owner = 'ben' WHERE id = 1",
        "UPDATE app.t SET owner = 'ada', secret = '7' WHERE id = 4",
        "UPDATE app.t SET owner = NULL WHERE id = 5",
        "DELETE FROM app.t WHERE id IN (2, 3, 4)",
        "INSERT INTO app.t VALUES (9, 'ada', '9')",
    ):
        await server.result("admin", statement)
    expected = [
        ("insert", 5, "5"),
        ("update", 1, "10"),
        ("delete", 1, "10"),
        ("insert", 4, "7"),
        ("delete", 5, "5"),
        ("delete", 4, "7"),
        ("insert", 9, "9"),
    ]
    for subscriber in (plain, cast):
        await subscriber.wait_changes(len(expected))
        assert told(subscriber) == expected
    assert told(pinned) == [("insert", 5, "5"), ("delete", 5, "5")]
    assert not hidden.changes
    assert not plain.of("closed")
    assert not cast.of("closed")

    resumed = await subscribe(client, "SELECT * FROM app.t WHERE CAST(secret AS INT) > 0", from_seq=3)
    await resumed.wait_changes(len(expected))
    assert told(resumed) == expected


async def test_events_of_a_stream_are_shown_and_replayed_as_the_policies_leave_them(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE STREAM TABLE app.s (id INT, owner TEXT, secret TEXT) WITH (subject_key = 'owner');"
        "GRANT ALL ON TABLE app.s TO ada, ben",
    )
    await server.policy("app.s", "true", name="all", to="admin")
    await server.policy("app.s", "owner = CURRENT_USER()", to="ada")
    await server.policy("app.s", "lower(owner) = CURRENT_USER()", name="q", to="ben")
    await server.secure("app.s")
    values = "(1, 'ada', '1'), (2, 'ben', '2'), (3, NULL, 'hush'), (4, 'ada', '4'), (5, 'cleo', 'hush')"
    await server.result("admin", f"INSERT INTO app.s VALUES {values}")
    assert await server.rows("ada", "SELECT id FROM app.s WHERE CAST(secret AS INT) > 0") == [[1], [4]]
    assert await server.rows("ben", "SELECT id FROM app.s WHERE CAST(secret AS INT) > 0") == [[2]]
    ada, ben = await server.connect("ada"), await server.connect("ben")
    for client, user, ids in ((ada, "ada", [1, 4]), (ben, "ben", [2])):
        sql = "SELECT id, secret FROM app.s WHERE CAST(secret AS INT) > 0"
        first = await subscribe(client, sql, user)
        again = await subscribe(client, sql, user, from_seq=0)
        assert [row["id"] for row in first.rows] == ids
        await again.wait_changes(len(ids))
        await server.result("admin", f"INSERT INTO app.s VALUES (6, 'cleo', 'hush'), (7, '{user}', '7')")
        await first.wait_changes(1)
        await again.wait_changes(len(ids) + 1)
        assert told(first) == [("insert", 7, "7")]
        assert [row for _, row, _ in told(again)] == [*ids, 7]
    answer = await ask(ada, "kalam.api.ada.replay", {"table": "app.s", "from_seq": 1})
    replayed = Subscriber(ada, answer, "ada")
    await ada.subscribe(answer["subject"], cb=replayed.take)
    await replayed.wait_changes(3)
    assert [row for _, row, _ in told(replayed)] == [1, 4, 7]
    with pytest.raises(Refused) as refused:
        await ask(ben, "kalam.api.ben.replay", {"table": "app.s", "from_seq": 1})
    assert refused.value.code == "permission_denied"


async def test_a_live_query_ends_where_the_policies_are_others_by_now(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, secret TEXT); GRANT SELECT ON TABLE app.t TO ada;"
        "CREATE ROLE team; GRANT team TO ada; GRANT SELECT ON TABLE app.t TO team",
    )
    await server.policy("app.t", "owner = ANY(CURRENT_ROLES())")
    await server.secure("app.t")
    subscriber = await subscribe(await server.connect("ada"), "SELECT * FROM app.t")
    await server.result("admin", "REVOKE team FROM ada")
    await subscriber.wait(lambda: subscriber.of("closed"))
    assert subscriber.of("closed")[0]["reason"] == "permission"


async def test_a_live_query_ends_where_a_role_hides_more(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, secret TEXT); GRANT SELECT ON TABLE app.t TO ada, ben;"
        "CREATE TABLE app.open (id INT PRIMARY KEY, secret TEXT); GRANT SELECT ON TABLE app.open TO ada;"
        "CREATE ROLE guest; CREATE ROLE inner; GRANT guest TO inner; INSERT INTO app.t VALUES (1, 'ben', 'seen')",
    )
    await server.policy("app.t", "owner = CURRENT_USER() OR NOT array_has(CURRENT_ROLES(), 'guest')")
    await server.policy("app.t", "true", name="all", to="admin")
    await server.secure("app.t")
    ada = await server.connect("ada")
    narrowed = await subscribe(ada, "SELECT * FROM app.t")
    untouched = await subscribe(ada, "SELECT * FROM app.open")
    other = await subscribe(await server.connect("ben"), "SELECT * FROM app.t", "ben")
    assert [row["id"] for row in narrowed.rows] == [1]
    await server.result("admin", "GRANT inner TO ada")
    await server.result("admin", "UPDATE app.t SET secret = 'hush'; INSERT INTO app.open VALUES (2, 'told')")
    await narrowed.wait(lambda: narrowed.of("closed"))
    await untouched.wait_changes(1)
    await other.wait_changes(1)
    assert (narrowed.of("closed")[0]["reason"], narrowed.changes) == ("permission", [])
    assert (told(untouched), told(other)) == ([("insert", 2, "told")], [("update", 1, "hush")])
    assert (await subscribe(ada, "SELECT * FROM app.t")).rows == []


async def test_a_change_of_other_columns_is_told_of_without_its_values(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, secret TEXT); GRANT SELECT ON TABLE app.t TO ada;"
        "INSERT INTO app.t VALUES (1, 'ben', 'hush'); FLUSH TABLE app.t",
    )
    await server.policy("app.t", "owner = CURRENT_USER()")
    await server.secure("app.t")
    await server.result("admin", "ALTER TABLE app.t DROP COLUMN secret; ALTER TABLE app.t ADD COLUMN secret INT")
    resumed = await subscribe(await server.connect("ada"), "SELECT id FROM app.t", from_seq=0)
    await resumed.wait(lambda: resumed.of("closed"))
    reason = "cursor_expired: change 1 of table app.t is of other columns"
    assert resumed.of("closed")[0]["reason"] == reason
