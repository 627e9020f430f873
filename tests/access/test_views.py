"""Views where users log in: they run with their owner's rights, and tell others nothing of what they read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from guarded_world import World
from live_subscriber import Refused, subscribe
from patience import PATIENCE_S


def until(world: World, view: str, state: str) -> dict[str, Any]:
    """How a view stands, once it is in that state."""
    deadline = time.monotonic() + PATIENCE_S
    query = f"SELECT state, reason, position, how FROM system.views WHERE namespace || '.' || view_name = '{view}'"
    while (found := world.admin.rows(query)) == [] or found[0][0] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return dict(zip(("state", "reason", "position", "how"), found[0], strict=True))


def test_a_view_stops_without_its_owner_s_right_and_goes_on_with_it(world: World) -> None:
    maker = world.user("maker", "CREATE NAMESPACE made", "GRANT CREATE ON NAMESPACE made TO maker")
    viewer = world.user("viewer")
    world.admin.rows("CREATE TABLE made.t (id INT PRIMARY KEY, v TEXT); INSERT INTO made.t VALUES (1, 'one')")
    assert maker.code("CREATE MATERIALIZED VIEW made.w AS SELECT id, v FROM made.t") == "table_not_found"
    world.admin.rows("GRANT SELECT ON TABLE made.t TO maker")
    maker.rows("CREATE MATERIALIZED VIEW made.w AS SELECT id, v FROM made.t; GRANT SELECT ON TABLE made.w TO viewer")
    until(world, "made.w", "running")
    assert viewer.rows("SELECT v FROM made.w") == [["one"]]
    assert viewer.code("SELECT v FROM made.t") == "table_not_found"
    assert viewer.rows("SELECT state, reason, position, how FROM system.views") == [["running", None, None, None]]
    assert viewer.rows("SHOW CREATE TABLE made.w") == [[None]]
    assert "made.t" not in str(viewer.rows("DESCRIBE TABLE made.w"))
    assert maker.rows("SELECT how FROM system.views") == [["row-wise"]]
    world.admin.rows("REVOKE SELECT ON TABLE made.t FROM maker")
    assert until(world, "made.w", "stopped")["reason"] == "permission"
    world.admin.rows("INSERT INTO made.t VALUES (2, 'two'); FLUSH TABLE made.t")
    assert viewer.rows("SELECT v FROM made.w") == [["one"]]
    assert "has stopped: permission" in world.admin.answer("REFRESH MATERIALIZED VIEW made.w").json()["detail"]
    assert viewer.rows("SELECT v FROM made.w") == [["one"]]
    world.admin.rows("GRANT SELECT ON TABLE made.t TO maker")
    until(world, "made.w", "running")
    deadline = time.monotonic() + PATIENCE_S
    while sorted(viewer.rows("SELECT v FROM made.w")) != [["one"], ["two"]]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert viewer.code("DROP MATERIALIZED VIEW made.w") == "permission_denied"
    assert viewer.code("REFRESH MATERIALIZED VIEW made.w") == "permission_denied"
    world.admin.rows("DROP MATERIALIZED VIEW made.w; DROP NAMESPACE made CASCADE; DROP USER maker; DROP USER viewer")


async def test_a_view_in_memory_is_its_owner_s_and_shows_each_listener_what_they_may_see(world: World) -> None:
    admin = world.admin
    maker = world.user("owner_m", "CREATE NAMESPACE ram", "GRANT CREATE ON NAMESPACE ram TO owner_m")
    ann, bob, eve = world.user("ann_m"), world.user("bob_m"), world.user("eve_m")
    admin.rows(
        "CREATE TABLE ram.t (id INT PRIMARY KEY, who TEXT NOT NULL); INSERT INTO ram.t VALUES (1,'ann_m'), (2,'bob_m');"
        "GRANT SELECT ON TABLE ram.t TO owner_m"
    )
    maker.rows(
        "CREATE EPHEMERAL MATERIALIZED VIEW ram.w WITH (refresh = '0') AS"
        " SELECT who, count(*) AS n FROM ram.t GROUP BY who;"
        "GRANT SELECT ON TABLE ram.w TO ann_m, bob_m; CREATE POLICY own ON ram.w USING (who = CURRENT_USER());"
        "ALTER TABLE ram.w ENABLE ROW LEVEL SECURITY"
    )
    assert ann.rows("SELECT who, n FROM ram.w") == [["ann_m", 1]]
    assert eve.code("SELECT who FROM ram.w") == "namespace_not_found"
    assert ann.rows("SELECT state, reason, how FROM system.views") == [["asleep", None, None]]
    async with world.plain("ann_m") as hers, world.plain("bob_m") as his, world.plain("eve_m") as other:
        of_ann = await subscribe(hers.client, "SELECT who, n FROM ram.w", user="ann_m")
        of_bob = await subscribe(his.client, "SELECT who, n FROM ram.w", user="bob_m")
        with pytest.raises(Refused) as refused:
            await subscribe(other.client, "SELECT who FROM ram.w", user="eve_m")
        assert refused.value.code == "namespace_not_found"
        assert (of_ann.rows, of_bob.rows) == ([{"who": "ann_m", "n": 1}], [{"who": "bob_m", "n": 1}])
        assert of_ann.answer["table_id"] == of_bob.answer["table_id"]
        admin.rows("INSERT INTO ram.t VALUES (3, 'bob_m'); INSERT INTO ram.t VALUES (4, 'ann_m')")
        assert [change["row"] for change in await of_ann.wait_changes(1)] == [{"who": "ann_m", "n": 2}]
        assert [change["row"] for change in await of_bob.wait_changes(1)] == [{"who": "bob_m", "n": 2}]
        assert ann.rows("SELECT who, n FROM ram.w") == [["ann_m", 2]]
        admin.rows("REVOKE SELECT ON TABLE ram.t FROM owner_m")
        assert until(world, "ram.w", "stopped")["reason"] == "permission"
        assert bob.rows("SELECT who, n FROM ram.w") == [["bob_m", 2]]
        admin.rows("INSERT INTO ram.t VALUES (5, 'bob_m')")
        assert "has stopped: permission" in admin.answer("REFRESH MATERIALIZED VIEW ram.w").json()["detail"]
        admin.rows("ALTER MATERIALIZED VIEW ram.w SET (refresh = '1ms')")
        assert until(world, "ram.w", "stopped")["reason"] == "permission"
        assert bob.rows("SELECT who, n FROM ram.w") == [["bob_m", 2]], "nothing was read for whoever may not read it"
        admin.rows("GRANT SELECT ON TABLE ram.t TO owner_m")
        assert [change["row"]["n"] for change in await of_bob.wait_changes(2)] == [2, 3]
        maker.rows("REVOKE SELECT ON TABLE ram.w FROM bob_m")
        await of_bob.wait(lambda: of_bob.of("closed"))
        await of_ann.close()
    admin.rows("REVOKE SELECT ON TABLE ram.t FROM owner_m; ALTER MATERIALIZED VIEW ram.w SET (refresh = '1s')")
    admin.rows("DROP NAMESPACE ram CASCADE; DROP USER owner_m; DROP USER ann_m; DROP USER bob_m; DROP USER eve_m")


def test_a_sleeping_view_is_not_read_without_its_owner_s_right(world: World) -> None:
    maker = world.user("maker_s", "CREATE NAMESPACE doze", "GRANT CREATE ON NAMESPACE doze TO maker_s")
    viewer = world.user("viewer_s")
    world.admin.rows("CREATE TABLE doze.t (id INT PRIMARY KEY); GRANT SELECT ON TABLE doze.t TO maker_s")
    maker.rows(
        "CREATE EPHEMERAL MATERIALIZED VIEW doze.w AS SELECT count(*) AS n FROM doze.t;"
        "GRANT SELECT ON TABLE doze.w TO viewer_s"
    )
    assert viewer.rows("SELECT n FROM doze.w") == [[0]]
    world.admin.rows("REVOKE SELECT ON TABLE doze.t FROM maker_s")
    assert viewer.code("SELECT n FROM doze.w") == "permission_denied"
    assert "doze.t" not in viewer.answer("SELECT n FROM doze.w").text
    assert world.admin.rows("SELECT state, reason FROM system.views WHERE namespace = 'doze'") == [
        ["stopped", "permission"]
    ]
    world.admin.rows("DROP NAMESPACE doze CASCADE; DROP USER maker_s; DROP USER viewer_s")


def test_policies_of_a_source_keep_views_from_it(world: World) -> None:
    admin = world.admin
    admin.rows("CREATE NAMESPACE kept; CREATE TABLE kept.t (id INT PRIMARY KEY, v TEXT)")
    admin.rows("CREATE POLICY own ON kept.t USING (v = CURRENT_USER()); ALTER TABLE kept.t ENABLE ROW LEVEL SECURITY")
    assert admin.code("CREATE MATERIALIZED VIEW kept.w AS SELECT id FROM kept.t") == "unsupported"
    admin.rows(
        "ALTER TABLE kept.t DISABLE ROW LEVEL SECURITY; CREATE MATERIALIZED VIEW kept.w AS SELECT id FROM kept.t"
    )
    assert admin.code("ALTER TABLE kept.t ENABLE ROW LEVEL SECURITY") == "table_in_use"
    admin.rows("DROP NAMESPACE kept CASCADE")


def test_a_refusal_names_the_views_that_one_sees_and_counts_the_others(world: World) -> None:
    admin, maker = (
        world.admin,
        world.user("maker", "CREATE NAMESPACE used", "GRANT CREATE ON NAMESPACE used TO maker"),
    )
    maker.rows("CREATE TABLE used.t (id INT PRIMARY KEY, v TEXT)")
    admin.rows("CREATE NAMESPACE secret; CREATE VIEW secret.plain AS SELECT id, v FROM used.t")

    def refused(text: str) -> str:
        answer = maker.answer(text).json()
        assert answer["code"] == "table_in_use", answer
        return str(answer["detail"])

    for text in ("DROP TABLE used.t", "ALTER TABLE used.t DROP COLUMN v", "ALTER TABLE used.t RENAME COLUMN v TO w"):
        assert refused(text).endswith("is read by 1 view")
    admin.rows("CREATE MATERIALIZED VIEW secret.kept AS SELECT id, v FROM used.t")
    enabling = "ALTER TABLE used.t ENABLE ROW LEVEL SECURITY"
    for text in ("DROP TABLE used.t CASCADE", "ALTER TABLE used.t RENAME TO u", enabling):
        assert "is read by 1 materialized view" in refused(text)
    maker.rows("CREATE MATERIALIZED VIEW used.own AS SELECT id FROM used.t")
    assert "the materialized views used.own and 1 other" in refused("DROP TABLE used.t")
    assert "the materialized views secret.kept, used.own" in admin.answer("DROP TABLE used.t").json()["detail"]
    admin.rows("DROP NAMESPACE secret CASCADE; DROP NAMESPACE used CASCADE; DROP USER maker")


def test_a_view_is_not_made_for_somebody_who_may_not_read_what_it_reads(world: World) -> None:
    admin = world.admin
    world.user("zoe", "CREATE NAMESPACE acted", "GRANT CREATE ON NAMESPACE acted TO zoe")
    admin.rows("CREATE TABLE acted.t (id INT PRIMARY KEY)")
    for made in ("VIEW", "MATERIALIZED VIEW"):
        text = f"EXECUTE AS USER 'zoe' CREATE {made} acted.w AS SELECT id FROM acted.t"
        assert admin.code(text) == "permission_denied"
        admin.rows("GRANT SELECT ON TABLE acted.t TO zoe")
        admin.rows(f"{text}; DROP {made} acted.w; REVOKE SELECT ON TABLE acted.t FROM zoe")
        told = admin.rows("SELECT action, outcome FROM system.audit WHERE object = 'acted.w' ORDER BY at DESC LIMIT 3")
        assert [f"DROP {made}", "ok"] in told
        assert [f"CREATE {made}", "permission_denied"] in told
    admin.rows("DROP NAMESPACE acted CASCADE; DROP USER zoe")
