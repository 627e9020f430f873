"""DROP USER … CASCADE: nothing of what was hers is left for who gets her name, and her neighbours keep theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded_world import PASSWORD, Asker, World, open_world
from login_book import wait_until
from patience import PATIENCE_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = open_world(tmp_path)
    yield opened
    opened.close()
    opened.server.kill()


def files_of(world: World, user: str) -> list[Path]:
    return [path for path in (world.server.data_dir / "user" / "lab" / "notes" / user).rglob("*") if path.is_file()]


def heard(asker: Asker, from_seq: int) -> str:
    """What a live query tells that resumes there: up to the row that is new, or to its end."""
    with asker.stream("GET", "/v1/live", params={"sql": "SELECT v FROM lab.notes", "from_seq": from_seq}) as answer:
        if answer.status_code != 200:
            return str(answer.read())
        found = ""
        for line in answer.iter_lines():
            found += line
            if "anew" in line or '"closed"' in line:
                break
        return found


async def test_who_gets_the_name_finds_nothing_and_begins_behind_it(world: World) -> None:
    grant = "GRANT ALL ON TABLE lab.notes TO {}"
    ada, ben = world.user("ada", grant.format("ada")), world.user("ben", grant.format("ben"))
    owner = world.asker("owner")
    for each in (ada, ben):
        each.rows("INSERT INTO lab.notes VALUES (1, 'secret cold'), (2, 'secret deleted'), (3, 'secret changed')")
        each.rows("DELETE FROM lab.notes WHERE id = 2")
    owner.rows("FLUSH TABLE lab.notes")
    for each in (ada, ben):
        each.rows("UPDATE lab.notes SET v = 'secret hot' WHERE id = 3; INSERT INTO lab.notes VALUES (4, 'secret new')")
    world.admin.rows("REFRESH LAKE FOR TABLE lab.notes")
    assert files_of(world, "ada")
    world.admin.rows("DROP USER ada")
    assert world.admin.code("CREATE USER ada PASSWORD $1", PASSWORD) == "already_exists"
    assert "rows in 1 tables" in world.admin.answer("DROP USER ada CASCADE").json()["results"][0]["message"]
    assert files_of(world, "ada") == []
    world.user("ada", grant.format("ada"))
    for _ in range(2):
        ada, ben, owner = (world.asker(name) for name in ("ada", "ben", "owner"))
        assert ada.rows("SELECT * FROM lab.notes") == []
        assert ada.rows("SELECT * FROM lab.notes WHERE _deleted OR NOT _deleted") == []
        assert ben.rows("SELECT id, v FROM lab.notes ORDER BY id") == [
            [1, "secret cold"],
            [3, "secret hot"],
            [4, "secret new"],
        ]
        world.close()
        world.server.kill()
        world.server.restart()
    ada, ben, owner = (world.asker(name) for name in ("ada", "ben", "owner"))
    async with world.plain("ada") as plain:
        events = await plain.client.subscribe("kalam.user.ada.lab.notes.>")
        await plain.settle()
        ada.rows("INSERT INTO lab.notes VALUES (1, 'anew'), (2, 'again'); UPDATE lab.notes SET v = 'b' WHERE id = 1")
        told = [json.loads((await events.next_msg(timeout=PATIENCE_S)).data) for _ in range(2)]
    assert [(event["op"], event["rows"][0]["v"]) for event in told] == [("insert", "anew"), ("update", "b")]
    assert told[0]["seq"] > 6
    for from_seq in range(told[0]["seq"]):
        begun = heard(ada, from_seq)
        assert "secret" not in begun, from_seq
        assert "anew" in begun or "cursor_expired" in begun, from_seq
    assert "anew" in heard(ada, told[0]["seq"] - 1)
    owner.rows("FLUSH TABLE lab.notes; COMPACT TABLE lab.notes")
    world.admin.rows("REFRESH LAKE FOR TABLE lab.notes")
    assert {row[5] for row in owner.rows("CHECK TABLE lab.notes")} == {True}
    assert ada.rows("SELECT v FROM lab.notes ORDER BY id") == [["b"], ["again"]]
    world.admin.rows("DROP USER ada CASCADE")
    await wait_until(lambda: files_of(world, "ada") == [])
    assert len(ben.rows("SELECT id FROM lab.notes")) == 3
