"""EXECUTE AS USER before a live query: the rows of another, by an administrator's right, on a subject of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from guarded_world import World
from login_book import wait_until
from patience import PATIENCE_S

SQL = "EXECUTE AS USER 'watched' {}SELECT v FROM lab.notes"


async def ask(plain: Any, subject: str, **body: Any) -> dict[str, Any]:
    reply = await plain.client.request(f"kalam.api.root.{subject}", json.dumps(body).encode(), timeout=PATIENCE_S)
    found: dict[str, Any] = json.loads(reply.data)
    return found


@pytest.fixture(scope="module")
def watched(world: World) -> None:
    """A user with a row in a USER table."""
    world.user("watched", "GRANT ALL ON TABLE lab.notes TO watched").rows("INSERT INTO lab.notes VALUES (1, 'first')")


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("word", ["", "SUBSCRIBE TO "])
async def test_an_administrator_hears_the_rows_of_another_on_a_subject_of_their_own(world: World, word: str) -> None:
    async with world.plain("admin") as plain:
        opened = await ask(plain, "live", sql=SQL.format(word))
        assert opened["subject"] == f"kalam.live.root.{opened['id']}"
        heard = await plain.client.subscribe(opened["subject"])
        assert b"first" in (await heard.next_msg(timeout=PATIENCE_S)).data
        [shown] = [row for row in world.admin.rows("SHOW LIVE QUERIES") if row[0] == opened["id"]]
        assert shown[1] == "watched"
        assert await ask(plain, f"live.{opened['id']}.close") == {"closed": True}
        while b"closed" not in (await heard.next_msg(timeout=PATIENCE_S)).data:
            pass


@pytest.mark.usefixtures("watched")
async def test_over_http_too_and_the_query_ends_with_its_reader(world: World) -> None:
    with world.asker("admin").stream("GET", "/v1/live", params={"sql": SQL.format("")}) as answer:
        assert any("first" in line for line in answer.iter_lines())
    await wait_until(lambda: "watched" not in str(world.admin.rows("SHOW LIVE QUERIES")))


@pytest.mark.parametrize(
    ("person", "sql", "code"),
    [
        ("reader", "EXECUTE AS USER 'watched' SELECT v FROM lab.notes", "permission_denied"),
        ("admin", "EXECUTE AS USER 'nobody_of_that_name' SELECT v FROM lab.notes", "not_found"),
        ("admin", "EXECUTE AS USER 'watched' SHOW USERS", "unsupported"),
        ("admin", "EXECUTE AS USER 'watched' EXECUTE AS USER 'reader' SELECT v FROM lab.notes", "unsupported"),
        ("admin", "EXECUTE AS USER 'watched' SELECT count(*) FROM lab.notes", "unsupported"),
    ],
)
def test_who_may_not_act_follows_nothing(world: World, person: str, sql: str, code: str) -> None:
    answer = world.asker(person).send("GET", "/v1/live", params={"sql": sql})
    assert answer.json()["code"] == code
