"""A table that gets another name takes its rights along, and leaves nothing of them to the name that it had."""

from __future__ import annotations

import json

from guarded_world import World
from login_book import wait_until
from patience import PATIENCE_S


async def test_who_may_hear_a_table_hears_it_by_its_name_and_no_other_by_the_former_one(world: World) -> None:
    rows = world.admin.rows
    rows("CREATE TABLE lab.before (id INT PRIMARY KEY); GRANT SELECT ON TABLE lab.before TO none")
    async with world.plain("none") as plain:
        assert await plain.may_hear("kalam.shared.lab.before.>")
        rows("ALTER TABLE lab.before RENAME TO behind")
        await wait_until(lambda: not plain.client.is_connected)  # it was let in for the former name
    rows("CREATE TABLE lab.before (id INT PRIMARY KEY)")
    async with world.plain("none") as plain:
        assert not await plain.may_hear("kalam.shared.lab.before.>")
        heard = await plain.client.subscribe("kalam.shared.lab.behind.>")
        await plain.settle()
        rows("INSERT INTO lab.behind VALUES (2)")
        assert json.loads((await heard.next_msg(PATIENCE_S)).data)["rows"][0]["id"] == 2
    rows("DROP TABLE lab.before; DROP TABLE lab.behind")
