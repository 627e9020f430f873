"""What the audit tells of refusals, at whichever door; and what is not told to whom it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from guarded_world import Asker, World, user_of
from login_book import wait_until
from patience import PATIENCE_S

REFUSED: dict[str, tuple[str, Callable[[Asker], httpx.Response], tuple[str, str]]] = {
    "a statement": ("reader", lambda asker: asker.answer("DELETE FROM lab.t"), ("DELETE", "lab.t")),
    "a query": ("writer", lambda asker: asker.answer("SELECT v FROM lab.t"), ("SELECT", "")),
    "a streamed query": (
        "writer",
        lambda asker: asker.answer("SELECT v FROM lab.spare", Accept="text/csv"),
        ("SELECT", ""),
    ),
    "a live query": (
        "writer",
        lambda asker: asker.send("GET", "/v1/live", params={"sql": "SELECT v FROM lab.t"}),
        ("SUBSCRIBE", "lab.t"),
    ),
    "rows": (
        "reader",
        lambda asker: asker.send("POST", "/v1/tables/lab/t/rows", json=[{"id": 1}]),
        ("INSERT", "lab.t"),
    ),
    "rows that would merge": (
        "writer",
        lambda asker: asker.send("POST", "/v1/tables/lab/spare/rows?on_conflict=update", json=[{"id": 1}]),
        ("INSERT", "lab.spare"),
    ),
    "no rows": (
        "reader",
        lambda asker: asker.send("POST", "/v1/tables/lab/notes/rows", json=[]),
        ("INSERT", "lab.notes"),
    ),
    "rows on trial": (
        "reader",
        lambda asker: asker.send("POST", "/v1/tables/lab/logs/rows?dry_run=true", json=[{"id": 1}]),
        ("INSERT", "lab.logs"),
    ),
}


def told(world: World, person: str, door: str) -> list[list[Any]]:
    return world.admin.rows(
        "SELECT action, object, outcome FROM system.audit WHERE user = $1 AND door = $2", user_of(person), door
    )


@pytest.mark.parametrize("case", REFUSED)
def test_the_audit_tells_of_what_is_refused_over_http(world: World, case: str) -> None:
    person, ask, (action, about) = REFUSED[case]
    user = f"refused{list(REFUSED).index(case)}"
    granted = "SELECT" if person == "reader" else "INSERT, UPDATE, DELETE"
    asker = world.user(user, *(f"GRANT {granted} ON TABLE lab.{name} TO {user}" for name in TABLES))
    answer = ask(asker)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert [action, about, "permission_denied"] in told(world, user, "http")


TABLES = ("t", "spare", "notes", "logs")


async def test_the_audit_tells_of_what_is_refused_over_nats(world: World) -> None:
    world.user("unheard", "GRANT INSERT ON TABLE lab.logs TO unheard", "GRANT SELECT ON TABLE lab.t TO unheard")
    asked: list[tuple[str, dict[str, Any], list[str]]] = [
        ("sql", {"sql": "DROP TABLE lab.t"}, ["DROP TABLE", "lab.t"]),
        ("live", {"sql": "SELECT v FROM lab.logs"}, ["SUBSCRIBE", "lab.logs"]),
        ("replay", {"table": "lab.logs", "from_seq": 1}, ["SUBSCRIBE", "lab.logs"]),
        ("insert.lab.t", {"id": 1}, ["INSERT", "lab.t"]),
    ]
    async with world.plain("unheard") as plain:
        for subject, body, _ in asked:
            reply = await plain.client.request(f"kalam.api.unheard.{subject}", json.dumps(body).encode(), PATIENCE_S)
            assert json.loads(reply.data)["code"] == "permission_denied"
    entries = told(world, "unheard", "nats")
    for *_, entry in asked:
        assert [*entry, "permission_denied"] in entries


def test_a_namespace_that_is_hidden_has_no_tables_for_other_engines_either(world: World) -> None:
    """Whether there is a namespace, or a table of a name like it, is not told."""
    reader = world.asker("reader")
    for path in ("", "/tables", "/tables/gold", "/tables/nothing"):
        hidden = reader.send("GET", f"/iceberg/v1/namespaces/vault{path}")
        missing = reader.send("GET", f"/iceberg/v1/namespaces/missing{path}")
        assert hidden.status_code == missing.status_code == 404
        assert hidden.text == missing.text.replace("missing", "vault")
    near = reader.send("GET", "/iceberg/v1/namespaces/lab/tables/spar")
    assert "spare" not in near.text.replace("lab.spar ", "")


def test_all_lakes_that_are_refreshed_are_ones_own(world: World) -> None:
    world.asker("owner").rows("FLUSH TABLE lab.t")
    assert world.asker("reader").rows("REFRESH LAKE") == []
    assert ["lab", "t"] in [row[:2] for row in world.asker("owner").rows("REFRESH LAKE")]


def test_who_asks_for_another_changes_no_users(world: World) -> None:
    world.user("proxied")
    admin, other = world.asker("admin"), {"X-Kalam-User": "proxied"}
    for statement in ("CREATE TOKEN 'x'", "ALTER USER proxied LOCK", "SHOW TOKENS", "GRANT readers TO proxied"):
        assert admin.code(statement, **other) == "unsupported", statement
    assert admin.rows("SELECT CURRENT_USER()", **other) == [["proxied"]]
    assert {"root", "proxied"}.isdisjoint(row[2] for row in admin.rows("SHOW TOKENS"))


async def test_who_is_no_administrator_any_more_hears_nothing_for_another(world: World) -> None:
    """A USER table that is open to everybody: the right to read it stays, that to the rows of another does not."""
    world.admin.rows("CREATE USER former PASSWORD $1 ADMIN", "a right good password")
    world.user("acted")
    world.admin.rows("GRANT ALL ON TABLE lab.notes TO former, acted")
    former, acted = world.asker("former"), world.asker("acted")
    live = {"params": {"sql": "SELECT v FROM lab.notes"}, "headers": {"X-Kalam-User": "acted"}}
    with former.stream("GET", "/v1/live", **live) as answer:
        lines = answer.iter_lines()
        while "ready" not in next(lines):
            pass
        world.admin.rows("ALTER USER former NOADMIN")
        acted.rows("INSERT INTO lab.notes VALUES (1, 'of acted')")
        left: list[str] = []
        with suppress(httpx.RemoteProtocolError):  # it is broken off
            left += lines
    assert "of acted" not in "".join(left)
    await wait_until(lambda: "former" not in str(world.admin.rows("SHOW LIVE QUERIES")))


def test_who_is_given_the_rows_of_all_users_is_told_of(world: World) -> None:
    """The one exception to administrators seeing nobody's rows: a USER table as other engines read it."""
    notes = "/iceberg/v1/namespaces/lab/tables/notes"
    world.asker("writer").rows("INSERT INTO lab.notes VALUES (1, 'of writer')")
    world.asker("owner").rows("FLUSH TABLE lab.notes")
    assert world.asker("reader").send("GET", notes).status_code == 404
    assert world.asker("admin").send("GET", notes).status_code == 200
    entries = world.admin.rows("SELECT user, door, action, outcome FROM system.audit WHERE object = 'lab.notes'")
    assert ["root", "http", "READ ALL USERS", "ok"] in entries
    assert "reader" not in [user for user, _, action, _ in entries if action == "READ ALL USERS"]
