"""Who is answered on which route of HTTP, and who sees what of each system table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from guarded_world import INSIDE, OUTSIDE, PASSWORD, PEOPLE, World, user_of

REFUSED = {401, 429}
"""What who is not let in is answered, the second after some failures."""

ROUTES = """
nobody wrong locked expired none reader writer owner member admin trusted

200 200 200 200 200 200 200 200 200 200 200   GET /
200 200 200 200 200 200 200 200 200 200 200   GET /console/{name}
200 200 200 200 200 200 200 200 200 200 200   GET /llms.txt
200 200 200 200 200 200 200 200 200 200 200   GET /docs
200 200 200 200 200 200 200 200 200 200 200   GET /openapi.json
200 200 200 200 200 200 200 200 200 200 200   GET /livez
200 401 401 401 200 200 200 200 200 200 200   GET /readyz
200 401 401 401 200 200 200 200 200 200 200   GET /metrics
401 401 401 401 200 200 200 200 200 200 200   POST /v1/login
401 401 401 401 204 204 204 204 204 204 204   POST /v1/logout
401 401 401 401 200 200 200 200 200 200 200   GET /v1/me
401 401 401 401 200 200 200 200 200 200 200   POST /v1/sql
401 401 401 401 404 404 404 404 404 404 404   DELETE /v1/queries/{query_id}
401 401 401 401 404 403 200 200 403 200 404   POST /v1/tables/{namespace}/{table}/rows
401 401 401 401 404 200 403 200 200 200 404   GET /v1/live
401 401 401 401 200 200 200 200 200 200 200   GET /v1/overview
401 401 401 401 200 200 200 200 200 200 200   GET /v1/catalogue
401 401 401 401 200 200 200 200 200 200 200   GET /iceberg/v1/config
401 401 401 401 200 200 200 200 200 200 200   GET /iceberg/v1/namespaces
401 401 401 401 404 200 200 200 200 200 200   GET /iceberg/v1/namespaces/{namespace}
401 401 401 401 404 200 200 200 200 200 200   HEAD /iceberg/v1/namespaces/{namespace}
401 401 401 401 404 200 200 200 200 200 200   GET /iceberg/v1/namespaces/{namespace}/tables
401 401 401 401 404 200 404 200 200 200 404   GET /iceberg/v1/namespaces/{namespace}/tables/{table}
401 401 401 401 404 200 404 200 200 200 404   HEAD /iceberg/v1/namespaces/{namespace}/tables/{table}
"""

QUERIES = {"GET /v1/live": {"sql": "SELECT v FROM lab.t"}}
BODIES: dict[str, Any] = {
    "POST /v1/sql": {"sql": "SELECT 1"},
    "POST /v1/tables/{namespace}/{table}/rows": [{"id": 500, "v": "sent"}],
}
STRANGERS = {
    "/",
    "/console/{name}",
    "/llms.txt",
    "/docs",
    "/openapi.json",
    "/livez",
    "/readyz",
    "/metrics",
    "/v1/login",
}
"""What who says nothing is answered, by the contract."""


@dataclass(frozen=True)
class Line:
    """A route, and the status of its answer to each of ``PEOPLE``."""

    method: str
    path: str
    expected: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def statuses(self, person: str) -> set[int]:
        status = self.expected[PEOPLE.index(person)]
        return REFUSED if status == 401 and person != "nobody" else {status}


def lines() -> list[Line]:
    """The lines of the table."""
    head, *rest = [line for line in ROUTES.strip().splitlines() if line]
    assert tuple(head.split()) == PEOPLE
    found = []
    for line in rest:
        *statuses, method, path = line.split()
        found.append(Line(method, path, tuple(map(int, statuses))))
        assert len(statuses) == len(PEOPLE), line
    return found


def served(world: World) -> dict[str, bool]:
    """The routes that the server has, and whether strangers may ask them."""
    document = world.admin.send("GET", "/openapi.json").json()
    return {
        f"{method.upper()} {path}": operation["security"] == []
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_has_a_line(world: World) -> None:
    routes = served(world)
    assert {line.name for line in lines()} == set(routes)
    assert {route.split()[1] for route, open_to_all in routes.items() if open_to_all} == STRANGERS


def sent(world: World, person: str, line: Line) -> int:
    """The status of the answer to a request on a route; of an answer that goes on, its beginning is read."""
    names = {"name": "console.js", "query_id": "nothing", "namespace": "lab", "table": "t"}
    asked: dict[str, Any] = {"params": QUERIES.get(line.name)}
    if line.path == "/v1/login":
        secret = {"nobody": "", "wrong": "a wrong password"}.get(person, PASSWORD)
        asked["json"] = {"user": user_of(person), "password": secret}
        asked["headers"] = {"Authorization": ""}
    elif line.method == "POST":
        asked["json"] = BODIES.get(line.name)
    with world.asker(person).stream(line.method, line.path.format(**names), **asked) as answer:
        return answer.status_code


@pytest.mark.parametrize("person", PEOPLE)
def test_each_is_answered_as_the_table_says(world: World, person: str) -> None:
    wrong = []
    for line in lines():
        status = sent(world, person, line)
        if status not in line.statuses(person):
            wrong.append(f"{line.name}: {status}")
        if status == 200 and line.path.endswith("/rows"):
            world.admin.rows("DELETE FROM lab.t WHERE id = 500")
    assert wrong == []


@pytest.mark.parametrize("person", OUTSIDE)
@pytest.mark.parametrize("path", ["/iceberg/v1/anything", "/iceberg", "/v1/anything", "/v1", "/anything"])
def test_where_nothing_is_nobody_is_told_more(world: World, person: str, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT"):
        assert world.asker(person).send(method, path).status_code in (401, 403, 404, 405, 429)


# The system tables.

SYSTEM = """
none reader writer owner member admin trusted

.  seen  seen  seen  seen  all seen   namespaces
.  seen  seen  seen  seen  all seen   tables
.  seen  seen  seen  seen  all seen   columns
.  seen  seen  seen  seen  all seen   table_schemas
.  .     .     owned .     all .      segments
.  .     .     owned .     all .      jobs
.  own   .     owned own   all .      live_queries
.  seen  .     seen  seen  all .      views
own own  own   own   own   all own    sessions
own own  own   own   own   all own    queries
.  .     .     .     .     all .      audit
.  .     .     .     .     all .      stats
"""
"""What somebody is shown of a system table: ``.`` nothing; what is of tables that they see, or own; of themselves."""
VISIBLE = {"none": set[str](), "trusted": {"lab.logs"}}
"""The tables that somebody sees, where it is not ``LAB``."""
LAB = {"lab.t", "lab.spare", "lab.notes", "lab.logs"}
KNOWN = LAB | {"vault.gold", "vault.diary", "vault.alarms"}
"""What there is before a test makes more."""
STORED = {"lab.t"}
"""Of these something was flushed."""


def system_lines() -> dict[str, dict[str, str]]:
    head, *rest = [line.split() for line in SYSTEM.strip().splitlines() if line]
    assert tuple(head) == INSIDE
    return {name: dict(zip(INSIDE, cells, strict=True)) for *cells, name in rest}


@pytest.fixture(scope="module")
def busy(world: World) -> Iterator[World]:
    """A world in which there is something to see in each system table, of ``keeper`` too."""
    world.asker("owner").rows("FLUSH TABLE lab.t")
    world.asker("keeper").rows("FLUSH TABLE vault.gold")
    for person in (*INSIDE, "keeper"):
        body = {"user": user_of(person), "password": PASSWORD}
        assert world.asker(person).send("POST", "/v1/login", json=body).status_code == 200
    for person in ("reader", "member", "owner"):
        world.asker(person).rows("SUBSCRIBE TO SELECT v FROM lab.t")
    world.asker("keeper").rows("SUBSCRIBE TO SELECT bars FROM vault.gold")
    world.admin.rows("CREATE MATERIALIZED VIEW vault.heap AS SELECT count(*) AS n FROM vault.gold")
    yield world
    world.admin.rows("DROP MATERIALIZED VIEW vault.heap")


def test_every_system_table_has_a_line(busy: World) -> None:
    assert {row[1] for row in busy.admin.rows("SHOW TABLES IN system")} == set(system_lines())


@pytest.mark.parametrize("name", sorted(system_lines()))
def test_each_is_shown_what_the_table_says(busy: World, name: str) -> None:
    wrong = {}
    for person in INSIDE:
        answer = busy.asker(person).answer(f"SELECT * FROM system.{name}").json()["results"][0]
        columns = [column["name"] for column in answer["columns"]]
        rows = [dict(zip(columns, row, strict=True)) for row in answer["rows"]]
        if not fits(system_lines()[name][person], person, rows):
            wrong[person] = rows
    assert wrong == {}


def fits(expected: str, person: str, rows: list[dict[str, Any]]) -> bool:
    """Whether somebody is shown what is expected, no more and no less."""
    about = {subject(row) for row in rows}
    match expected:
        case ".":
            return rows == []
        case "own":
            return about == {user_of(person)}
        case "seen":
            tables = VISIBLE.get(person, LAB)
            namespaces = {table.partition(".")[0] for table in tables}
            return about & KNOWN == tables or about & {"lab", "vault"} == namespaces
        case "owned":
            tables = {row["table"] for row in rows} if "table" in rows[0] else about
            return tables >= STORED and "vault" not in str(tables)
        case _:
            told = str(rows)
            return "bullion" not in told and (
                "vault" in told or "keeper" in told or "name" in rows[0] or "door" in rows[0]
            )


def subject(row: dict[str, Any]) -> str:
    """The table, the namespace or the user that a row is about."""
    if "table_name" in row:
        return f"{row['namespace']}.{row['table_name']}"
    return str(row.get("user") or row.get("user_id") or row.get("namespace"))
