"""Views under rights and policies: they run with their owner's, for whoever asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from policy_server import PolicyServer, Refused, policy_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    """A table of which everybody sees their own rows, and ada's view of it."""
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result(
            "admin",
            "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT);"
            "INSERT INTO app.t VALUES (1, 'ada'), (2, 'ben'), (3, 'ada');"
            "GRANT CREATE ON NAMESPACE app TO ada; GRANT SELECT ON TABLE app.t TO ada",
        )
        await server.policy("app.t", "owner = CURRENT_USER()")
        await server.secure("app.t")
        await server.result("ada", "CREATE VIEW app.v AS SELECT id, owner, CURRENT_USER() AS who FROM app.t")
        yield server


async def test_the_rows_are_those_that_its_owner_sees(server: PolicyServer) -> None:
    assert await server.code("ben", "SELECT * FROM app.v") == "namespace_not_found"
    await server.result("ada", "GRANT SELECT ON TABLE app.v TO ben")
    assert sorted(await server.rows("ben", "SELECT * FROM app.v")) == [[1, "ada", "ben"], [3, "ada", "ben"]]
    assert await server.code("ben", "SELECT * FROM app.t") == "table_not_found"
    await server.result("admin", "GRANT SELECT ON TABLE app.t TO ben")
    both = "SELECT v.id, t.id FROM app.v CROSS JOIN app.t ORDER BY 1"
    assert await server.rows("ben", both) == [[1, 2], [3, 2]]
    assert await server.code("ben", "EXPLAIN ANALYZE SELECT * FROM app.v") == "permission_denied"
    assert await server.rows("ben", "SHOW CREATE TABLE app.v") == [[None]]
    assert await server.code("ben", "CREATE OR REPLACE VIEW app.v AS SELECT 1 AS id") == "permission_denied"
    assert await server.code("ben", "DROP VIEW app.v") == "permission_denied"


async def test_a_view_ends_with_the_rights_of_its_owner(server: PolicyServer) -> None:
    await server.result("ada", "GRANT SELECT ON TABLE app.v TO ben")
    await server.result("admin", "REVOKE SELECT ON TABLE app.t FROM ada")
    for user in ("ada", "ben"):
        assert await server.code(user, "SELECT * FROM app.v") == "permission_denied"
    await server.result("admin", "INSERT INTO app.t VALUES (4, 'admin'); ALTER VIEW app.v OWNER TO admin")
    assert await server.rows("ben", "SELECT id FROM app.v") == [[4]]


async def test_a_view_of_a_view_ends_with_the_right_to_that_view(server: PolicyServer) -> None:
    await server.users("eve")
    await server.result("admin", "GRANT CREATE ON NAMESPACE app TO ben")
    await server.result("ada", "GRANT SELECT ON TABLE app.v TO ben")
    await server.result("ben", "CREATE VIEW app.w AS SELECT id FROM app.v; GRANT SELECT ON TABLE app.w TO eve")
    assert sorted(await server.rows("eve", "SELECT id FROM app.w")) == [[1], [3]]
    await server.result("ada", "REVOKE SELECT ON TABLE app.v FROM ben")
    for user in ("ben", "eve"):
        assert await server.code(user, "SELECT id FROM app.w") == "permission_denied"


async def test_who_may_read_a_view_is_not_told_what_it_reads(server: PolicyServer) -> None:
    await server.result("admin", "ALTER TABLE app.t DISABLE ROW LEVEL SECURITY")
    await server.result("ada", "GRANT SELECT ON TABLE app.v TO ben")
    assert await server.code("ben", "EXPLAIN SELECT * FROM app.v") == "permission_denied"
    assert "app.t" in str(await server.rows("ada", "EXPLAIN SELECT * FROM app.v"))
    await server.result("admin", "REVOKE SELECT ON TABLE app.t FROM ada")
    with pytest.raises(Refused) as refused:
        await server.result("ben", "SELECT * FROM app.v")
    assert "app.t" not in str(refused.value)


async def test_a_sub_query_that_is_compared_row_by_row_sees_no_more_rows(server: PolicyServer) -> None:
    await server.result("admin", "GRANT SELECT, INSERT ON TABLE app.t TO ben; GRANT INSERT ON TABLE app.t TO ada")
    await server.result("ben", "INSERT INTO app.t VALUES (4, 'ben')")
    await server.result("ada", "INSERT INTO app.t VALUES (5, 'ada')")
    before = "(SELECT count(*) FROM app.t AS x WHERE x.id < t.id)"
    assert await server.rows("ada", f"SELECT id, {before} FROM app.t ORDER BY 1") == [[1, 0], [3, 1], [5, 2]]
    assert await server.rows("ben", f"SELECT id, {before} FROM app.t ORDER BY 1") == [[2, 0], [4, 1]]
    [[*shown, less]] = await server.rows("ben", f"SELECT *, {before} FROM app.t WHERE id > 2")
    assert (shown[:2], less) == ([4, "ben"], 1)
    await server.result("ada", "GRANT SELECT ON TABLE app.v TO ben")
    mixed = "SELECT id, (SELECT count(*) FROM app.v AS x WHERE x.id < t.id) FROM app.t ORDER BY 1"
    assert await server.rows("ben", mixed) == [[2, 1], [4, 2]]
