"""Statements under policies: what they hide is neither read nor changed, and nothing is written that they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from patience import PATIENCE_S
from policy_server import PolicyServer, Refused, policy_server

FORMS = ["owner = CURRENT_USER()", "lower(owner) = CURRENT_USER()", "owner = 'nobody' OR owner = CURRENT_USER()"]
MINE = [1, 4, 5]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    """A table of whose rows some are ada's, in a segment and hot; her secrets are numbers, and no others."""
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result(
            "admin",
            "CREATE NAMESPACE app; CREATE TABLE app.notes (id INT PRIMARY KEY, owner TEXT, secret TEXT);"
            "GRANT ALL ON TABLE app.notes TO ada, ben;"
            "INSERT INTO app.notes VALUES (1, 'ada', '1'), (2, 'ben', 'hush'), (3, NULL, 'hush'), (4, 'ada', '4');"
            "FLUSH TABLE app.notes;"
            "INSERT INTO app.notes VALUES (5, 'ada', '5'), (6, 'ben', 'hush'), (7, NULL, 'hush')",
        )
        await server.secure("app.notes")
        yield server


async def test_without_a_policy_there_is_nothing_for_anybody(server: PolicyServer) -> None:
    for user in ("ada", "admin"):
        assert await server.rows(user, "SELECT * FROM app.notes") == []
        assert await server.rows(user, "SELECT * FROM app.notes WHERE id = 1") == []
        assert await server.rows(user, "SELECT count(*) FROM app.notes") == [[0]]
        assert await server.code(user, "INSERT INTO app.notes VALUES (9, 'ada', '9')") == "permission_denied"
        assert (await server.result(user, "UPDATE app.notes SET secret = 'x'"))["row_count"] == 0
        assert (await server.result(user, "DELETE FROM app.notes"))["row_count"] == 0
    await server.secure("app.notes", on=False)
    assert await server.rows("ada", "SELECT count(*) FROM app.notes") == [[7]]


async def test_a_read_sees_what_the_policies_leave_and_evaluates_nothing_on_the_rest(server: PolicyServer) -> None:
    for form in FORMS:
        await server.policy("app.notes", form)
        for sql, found in (
            ("SELECT id FROM app.notes ORDER BY id", [[key] for key in MINE]),
            ("SELECT count(*) FROM app.notes", [[3]]),
            ("SELECT id FROM app.notes WHERE CAST(secret AS INT) > 1 ORDER BY id", [[4], [5]]),
            ("SELECT CAST(secret AS INT) AS n FROM app.notes ORDER BY CAST(secret AS INT) DESC LIMIT 2", [[5], [4]]),
            ("SELECT sum(1 / CAST(secret AS INT)) FROM app.notes", [[1]]),
            ("SELECT owner, count(*) FROM app.notes GROUP BY owner", [["ada", 3]]),
            ("SELECT max(CAST(b.secret AS INT)) FROM app.notes a JOIN app.notes b ON a.id = b.id", [[5]]),
            ("SELECT count(*) FROM app.notes a FULL JOIN app.notes b ON a.id + 1 = b.id", [[5]]),
            (
                "SELECT id FROM app.notes WHERE id IN (SELECT CAST(secret AS INT) FROM app.notes) ORDER BY 1",
                [[1], [4], [5]],
            ),
            ("WITH t AS (SELECT * FROM app.notes) SELECT count(*) FROM t WHERE CAST(secret AS INT) > 0", [[3]]),
            ("SELECT n.secret FROM app.notes AS n WHERE n.owner IS NULL", []),
            ("SELECT CURRENT_USER(), array_length(CURRENT_ROLES())", [["ada", 0]]),
        ):
            assert await server.rows("ada", sql) == found, (form, sql)
        for key in range(1, 8):
            assert await server.rows("ada", f"SELECT id FROM app.notes WHERE id = {key}") == [
                [k] for k in MINE if k == key
            ]
            found = await server.rows("ada", "SELECT secret FROM app.notes WHERE id = $1", key)
            assert found == [[str(key)] for k in MINE if k == key]
    assert await server.code("ada", "EXPLAIN ANALYZE SELECT * FROM app.notes") == "permission_denied"
    plan = str(await server.rows("ada", "EXPLAIN SELECT * FROM app.notes WHERE secret = '1'"))
    assert "nobody" not in plan
    assert "ada" not in plan


async def test_deleted_rows_are_hidden_alike(server: PolicyServer) -> None:
    await server.policy("app.notes", FORMS[0])
    await server.policy("app.notes", "true", name="all", to="admin")
    await server.result("admin", "DELETE FROM app.notes WHERE id < 4")
    assert await server.rows("ada", "SELECT id FROM app.notes WHERE _deleted") == [[1]]
    await server.result("admin", "FLUSH TABLE app.notes")
    assert await server.rows("ada", "SELECT id FROM app.notes WHERE _deleted") == [[1]]
    assert await server.rows("admin", "SELECT id FROM app.notes WHERE _deleted ORDER BY id") == [[1], [2], [3]]


async def test_changes_meet_the_rows_that_one_sees_and_leave_rows_that_one_may_write(server: PolicyServer) -> None:
    for form in FORMS:
        await server.policy("app.notes", form)
        for sql, done in (
            ("UPDATE app.notes SET secret = '11'", 3),
            ("UPDATE app.notes SET secret = CAST(CAST(secret AS INT) + 1 AS TEXT) WHERE CAST(secret AS INT) > 0", 3),
            ("UPDATE app.notes SET secret = 'x' WHERE id = 2", 0),
            ("UPDATE app.notes SET secret = (SELECT max(secret) FROM app.notes) WHERE notes.id = 1", 1),
            ("UPDATE app.notes SET secret = CAST(id AS TEXT) WHERE id IN (SELECT id FROM app.notes)", 3),
            ("DELETE FROM app.notes WHERE id = 2", 0),
            ("DELETE FROM app.notes WHERE owner IS NULL OR secret = 'hush'", 0),
            ("INSERT INTO app.notes VALUES (10, 'ada', '10')", 1),
            ("INSERT INTO app.notes SELECT id + 10, owner, secret FROM app.notes WHERE CAST(secret AS INT) = 10", 1),
            ("DELETE FROM app.notes WHERE id = 10", 1),
            ("DELETE FROM app.notes WHERE CAST(secret AS INT) = 10", 1),
            ("INSERT INTO app.notes VALUES (1, 'ada', 'x') ON CONFLICT DO NOTHING", 0),
            ("INSERT INTO app.notes VALUES (2, 'ada', 'x') ON CONFLICT DO NOTHING", 0),
            ("INSERT INTO app.notes VALUES (1, 'ada', '1') ON CONFLICT DO UPDATE SET secret = excluded.secret", 1),
        ):
            assert (await server.result("ada", sql))["row_count"] == done, (form, sql)
        for sql in (
            "INSERT INTO app.notes VALUES (10, 'ben', 'x')",
            "INSERT INTO app.notes VALUES (11, 'ada', 'x'), (10, NULL, 'x')",
            "INSERT INTO app.notes SELECT id + 10, 'ben', secret FROM app.notes",
            "UPDATE app.notes SET owner = 'ben'",
            "UPDATE app.notes SET owner = NULL WHERE id = 1",
            "UPDATE app.notes SET owner = lower('BEN') WHERE secret = '4'",
            "INSERT INTO app.notes VALUES (2, 'ada', 'x') ON CONFLICT DO UPDATE SET secret = '1'",
            "INSERT INTO app.notes VALUES (1, 'ada', 'x') ON CONFLICT DO UPDATE SET owner = 'ben'",
            "INSERT INTO app.notes VALUES (1, 'ben', 'x') ON CONFLICT DO UPDATE SET secret = excluded.secret",
            "INSERT INTO app.notes VALUES (1, 'ben', 'x') ON CONFLICT DO NOTHING",
        ):
            assert await server.code("ada", sql) == "permission_denied", (form, sql)
    await server.secure("app.notes", on=False)
    rows = await server.rows("admin", "SELECT id, owner, secret FROM app.notes ORDER BY id")
    assert rows == [
        [1, "ada", "1"],
        [2, "ben", "hush"],
        [3, None, "hush"],
        [4, "ada", "4"],
        [5, "ada", "5"],
        [6, "ben", "hush"],
        [7, None, "hush"],
    ]


async def test_each_command_has_its_own_policies(server: PolicyServer) -> None:
    await server.policy("app.notes", "owner = CURRENT_USER()", name="see", command="SELECT")
    await server.policy("app.notes", "id < 5", name="change", command="UPDATE", check="id < 5 AND secret <> 'no'")
    await server.policy("app.notes", "id > 5", name="remove", command="DELETE")
    await server.policy("app.notes", None, name="add", command="INSERT", check="id >= 100")
    assert await server.rows("ada", "SELECT id FROM app.notes ORDER BY id") == [[1], [4], [5]]
    # A change that reads has to see the rows; one that does not is held by its own policies alone.
    assert (await server.result("ada", "UPDATE app.notes SET secret = 'y' WHERE id > 0"))["row_count"] == 2
    assert (await server.result("ada", "UPDATE app.notes SET secret = 'y'"))["row_count"] == 4
    assert await server.code("ada", "UPDATE app.notes SET secret = 'no'") == "permission_denied"
    assert await server.code("ada", "UPDATE app.notes SET owner = 'ben' WHERE id = 1") == "permission_denied"
    assert (await server.result("ada", "DELETE FROM app.notes WHERE id > 0"))["row_count"] == 0
    assert (await server.result("ada", "DELETE FROM app.notes"))["row_count"] == 2
    assert await server.code("ada", "INSERT INTO app.notes VALUES (99, 'ada', '')") == "permission_denied"
    assert await server.code("ada", "INSERT INTO app.notes VALUES (100, 'ben', '')") == "ok"
    assert await server.code("ada", "INSERT INTO app.notes VALUES (101, 'ben', '') RETURNING id") == "permission_denied"
    assert await server.rows("ada", "INSERT INTO app.notes VALUES (101, 'ada', '') RETURNING id") == [[101]]
    assert await server.rows("ada", "UPDATE app.notes SET secret = 'z' WHERE id = 4 RETURNING id, secret") == [[4, "z"]]


async def test_who_acts_for_another_is_under_the_others_policies(server: PolicyServer) -> None:
    await server.result("admin", "CREATE ROLE team; GRANT team TO ben")
    await server.policy("app.notes", "owner = CURRENT_USER()")
    await server.policy("app.notes", "'team' = ANY(CURRENT_ROLES()) AND owner IS NULL", name="q")
    assert await server.rows("admin", "SELECT id FROM app.notes") == []
    assert await server.rows("admin", "EXECUTE AS USER 'ada' SELECT id FROM app.notes ORDER BY id") == [[1], [4], [5]]
    assert await server.rows("admin", "EXECUTE AS USER 'ben' SELECT id FROM app.notes ORDER BY id") == [
        [2],
        [3],
        [6],
        [7],
    ]
    assert await server.rows("admin", "EXECUTE AS USER 'ada' SELECT id FROM app.notes WHERE id = 2") == []


LOOKS = "(SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b)"
"""What takes longer than any test."""
LOOKING = {
    "SELECT": f"SELECT * FROM app.notes WHERE {LOOKS} > 0",
    "UPDATE": f"UPDATE app.notes SET secret = '9' WHERE {LOOKS} > 0",
    "DELETE": f"DELETE FROM app.notes WHERE {LOOKS} > 0",
    "INSERT": f"INSERT INTO app.notes SELECT 50, 'ada', '50' WHERE {LOOKS} > 0",
    "upsert": f"INSERT INTO app.notes VALUES (1, 'ada', '') ON CONFLICT (id) DO UPDATE SET secret = {LOOKS}",
}


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        *((kind, f"REVOKE {kind} ON TABLE app.notes FROM ada") for kind in ("SELECT", "UPDATE", "DELETE", "INSERT")),
        ("upsert", "REVOKE UPDATE ON TABLE app.notes FROM ada"),
        *((kind, "CREATE POLICY q ON app.notes TO ben USING (true)") for kind in ("UPDATE", "DELETE", "INSERT")),
    ],
    ids=[*("select", "update", "delete", "insert", "upsert"), *("update-policy", "delete-policy", "insert-policy")],
)
async def test_a_statement_that_looks_for_its_rows_ends_with_its_right(
    server: PolicyServer, kind: str, ending: str
) -> None:
    await server.policy("app.notes", "owner = CURRENT_USER()")
    before = await server.rows("ada", "SELECT * FROM app.notes ORDER BY id")
    asked = asyncio.create_task(server.code("ada", LOOKING[kind]))
    async with asyncio.timeout(PATIENCE_S):
        while ["ada", "running"] not in await server.rows("admin", "SELECT user_id, state FROM system.queries"):
            assert not asked.done()
        await server.result("admin", ending)
        assert await asked == "cancelled"
    await server.result("admin", "GRANT ALL ON TABLE app.notes TO ada")
    assert await server.rows("ada", "SELECT * FROM app.notes ORDER BY id") == before


async def test_a_policy_that_fails_on_a_row_tells_nothing_of_it(server: PolicyServer) -> None:
    await server.policy("app.notes", "CAST(secret AS INT) > 0")
    for sql in (
        "SELECT id FROM app.notes",
        "SELECT id FROM app.notes WHERE id = 2",
        "UPDATE app.notes SET owner = 'ada'",
        "UPDATE app.notes SET owner = 'ada' WHERE id = 2",
        "DELETE FROM app.notes",
        "DELETE FROM app.notes WHERE id = 2",
        "INSERT INTO app.notes VALUES (10, 'ada', 'hush')",
    ):
        with pytest.raises(Refused) as refused:
            await server.result("ada", sql)
        assert refused.value.code == "invalid_value"
        assert "hush" not in str(refused.value.problem)
