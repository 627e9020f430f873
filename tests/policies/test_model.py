"""Random policies over random rows with NULLs: each way to a table shows and changes what a model says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live_subscriber import Subscriber, subscribe
from policy_server import PolicyServer, Refused, policy_server

Row = dict[str, Any]
Truth = bool | None
OWNERS, NUMBERS = ["ada", "ben", "team", "", None], [-1, 0, 1, 2, None]
NAMES = {"ada", "team", "PUBLIC"}
TABLES = count(1)


@dataclass(frozen=True)
class Expression:
    """A condition in SQL, and what it says of a row in SQL's three values, for ada, who is in the role team."""

    sql: str
    of: Callable[[Row], Truth]


def literal(value: Any) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


def either(a: Truth, b: Truth) -> Truth:
    return True if a or b else None if a is None or b is None else False


def opposite(a: Truth) -> Truth:
    return None if a is None else not a


def both(a: Truth, b: Truth) -> Truth:
    return opposite(either(opposite(a), opposite(b)))


def equal(a: Any, b: Any) -> Truth:
    return None if a is None or b is None else a == b


def compared(column: str, value: Any, sql: str | None = None) -> Expression:
    return Expression(f"{column} = {sql or literal(value)}", lambda row: equal(row[column], value))


def listed(column: str, values: list[Any]) -> Expression:
    def of(row: Row) -> Truth:
        return reduce(either, (equal(row[column], value) for value in values))

    return Expression(f"{column} IN ({', '.join(map(literal, values))})", of)


def above(number: int) -> Expression:
    return Expression(f"n > {number}", lambda row: None if row["n"] is None else row["n"] > number)


def empty(column: str) -> Expression:
    return Expression(f"{column} IS NULL", lambda row: row[column] is None)


LEAVES = st.one_of(
    st.just(compared("owner", "ada", "CURRENT_USER()")),
    st.just(Expression("owner = ANY(CURRENT_ROLES())", lambda row: equal(row["owner"], "team"))),
    st.just(Expression("lower(owner) = CURRENT_USER()", lambda row: equal(row["owner"], "ada"))),
    st.sampled_from(OWNERS[:4]).map(lambda value: compared("owner", value)),
    st.lists(st.sampled_from(OWNERS), min_size=1, max_size=3).map(lambda values: listed("owner", values)),
    st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3).map(lambda values: listed("n", values)),
    st.sampled_from(NUMBERS[:4]).map(above),
    st.sampled_from(["owner", "n", "b"]).map(empty),
    st.just(Expression("b", lambda row: row["b"])),
    st.just(Expression("true", lambda _: True)),
    st.just(Expression("false", lambda _: False)),
)


def joined(word: str, of: Callable[[Truth, Truth], Truth], a: Expression, b: Expression) -> Expression:
    return Expression(f"({a.sql}) {word} ({b.sql})", lambda row: of(a.of(row), b.of(row)))


def grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda a: Expression(f"NOT ({a.sql})", lambda row: opposite(a.of(row)))),
        pairs.map(lambda pair: joined("AND", both, *pair)),
        pairs.map(lambda pair: joined("OR", either, *pair)),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=4)


@dataclass(frozen=True)
class Policy:
    command: str
    to: str
    using: Expression | None
    check: Expression | None

    def holds_for(self, command: str) -> bool:
        return self.command in (command, "ALL") and self.to in NAMES

    @property
    def written(self) -> Expression:
        found = self.check or self.using
        assert found is not None
        return found


POLICIES = st.builds(
    lambda command, to, using, check: Policy(
        command,
        to,
        None if command == "INSERT" else using,
        None if command in ("SELECT", "DELETE") else check or (using if command == "INSERT" else None),
    ),
    st.sampled_from(["ALL", "ALL", "SELECT", "SELECT", "UPDATE", "DELETE", "INSERT"]),
    st.sampled_from(["PUBLIC", "PUBLIC", "ada", "team", "ben"]),
    EXPRESSIONS,
    st.none() | EXPRESSIONS,
)
VALUES = st.builds(
    lambda owner, n, b: {"owner": owner, "n": n, "b": b},
    st.sampled_from(OWNERS),
    st.sampled_from(NUMBERS),
    st.sampled_from([True, False, None]),
)
ASSIGNED: dict[str, list[Any]] = {"owner": OWNERS, "n": NUMBERS, "b": [True, None]}
ASSIGNMENTS = st.sampled_from(list(ASSIGNED)).flatmap(
    lambda column: st.tuples(st.just(column), st.sampled_from(ASSIGNED[column]))
)
STATEMENTS = st.one_of(
    st.tuples(st.just("UPDATE"), st.none() | EXPRESSIONS, ASSIGNMENTS),
    st.tuples(st.just("DELETE"), EXPRESSIONS, st.none()),
    st.tuples(st.just("INSERT"), st.none(), VALUES),
)


class Model:
    """The rows by id, and what ada may do with them."""

    def __init__(self, rows: list[Row], policies: list[Policy]) -> None:
        self.rows = {number: {"id": number, **row} for number, row in enumerate(rows)}
        self.policies = policies

    def seen(self, row: Row, *commands: str) -> bool:
        return all(
            any(policy.using.of(row) is True for policy in self.policies if policy.using and policy.holds_for(command))
            for command in commands
        )

    def written(self, row: Row, command: str) -> bool:
        return any(policy.written.of(row) is True for policy in self.policies if policy.holds_for(command))

    def visible(self) -> dict[int, Row]:
        return {key: row for key, row in self.rows.items() if self.seen(row, "SELECT")}

    def change(self, user: str, kind: str, where: Expression | None, change: Any) -> int | str:
        """How many rows a statement changes, or the code of its error."""
        free = user == "admin"
        reads = ("SELECT",) if where is not None else ()
        meant = {
            key: row
            for key, row in self.rows.items()
            if (free or self.seen(row, kind, *reads)) and (where is None or where.of(row) is True)
        }
        if kind == "DELETE":
            for key in meant:
                del self.rows[key]
            return len(meant)
        if kind == "INSERT":
            news = {(key := max(self.rows, default=0) + 1): {"id": key, **change}}
        else:
            news = {key: {**row, change[0]: change[1]} for key, row in meant.items()}
        if not free and not all(self.written(row, kind) and self.seen(row, *reads) for row in news.values()):
            return "permission_denied"
        self.rows.update(news)
        return len(news)


def statement(table: str, kind: str, where: Expression | None, change: Any, key: int) -> str:
    condition = "" if where is None else f" WHERE {where.sql}"
    if kind == "DELETE":
        return f"DELETE FROM {table}{condition}"
    if kind == "INSERT":
        return f"INSERT INTO {table} VALUES ({key}, {', '.join(map(literal, change.values()))})"
    return f"UPDATE {table} SET {change[0]} = {literal(change[1])}{condition}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, PolicyServer]]:
    with asyncio.Runner() as runner:
        opened = policy_server(tmp_path_factory.mktemp("model"))
        server = runner.run(opened.__aenter__())
        runner.run(server.users("ada", "ben"))
        runner.run(server.result("admin", "CREATE NAMESPACE app; CREATE ROLE team; GRANT team TO ada"))
        yield runner, server
        runner.run(opened.__aexit__(None, None, None))


@given(
    rows=st.lists(VALUES, max_size=8),
    policies=st.lists(POLICIES, max_size=3),
    steps=st.lists(st.tuples(st.sampled_from(["ada", "ada", "admin"]), STATEMENTS), max_size=5),
    where=EXPRESSIONS,
)
@settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,), database=None
)
def test_what_is_shown_and_changed_is_what_the_model_says(
    running: tuple[asyncio.Runner, PolicyServer],
    rows: list[Row],
    policies: list[Policy],
    steps: list[tuple[str, Any]],
    where: Expression,
) -> None:
    runner, server = running
    runner.run(example(server, Model(rows, policies), steps, where))


async def example(server: PolicyServer, model: Model, steps: list[tuple[str, Any]], where: Expression) -> None:
    table = f"app.t{next(TABLES)}"
    await server.result(
        "admin",
        f"CREATE TABLE {table} (id INT PRIMARY KEY, owner TEXT, n INT, b BOOLEAN); GRANT ALL ON TABLE {table} TO ada",
    )
    for number, row in enumerate(model.rows.values()):
        values = ", ".join(map(literal, row.values()))
        await server.result("admin", f"INSERT INTO {table} VALUES ({values})")
        if number == 3:
            await server.result("admin", f"FLUSH TABLE {table}")
    await server.policy(table, "true", name="all", to="admin")
    for number, policy in enumerate(model.policies):
        using, check = (None if each is None else each.sql for each in (policy.using, policy.check))
        await server.policy(table, using, name=f"p{number}", check=check, command=policy.command, to=policy.to)
    await server.secure(table)

    client = await server.connect("ada")
    first, began = model.visible(), len(model.rows)
    queries = [await subscribe(client, f"SELECT * FROM {table}")]
    queries.append(await subscribe(client, f"SELECT * FROM {table} WHERE ({where.sql}) AND 1 / (2 - 1) = 1"))
    await shown(server, table, model, where)
    for user, (kind, condition, change) in steps:
        text = statement(table, kind, condition, change, max(model.rows, default=0) + 1)
        if user == "admin":  # the model's conditions are ada's
            text = text.replace("CURRENT_USER()", "'ada'").replace("CURRENT_ROLES()", "make_array('team')")
        expected = model.change(user, kind, condition, change)
        try:
            done: int | str = (await server.result(user, text))["row_count"]
        except Refused as exc:
            done = exc.code
        assert done == expected, (user, text)
    await shown(server, table, model, where)
    queries.append(await subscribe(client, f"SELECT * FROM {table}", from_seq=began))
    left = model.visible()
    narrow = {key: row for key, row in left.items() if where.of(row) is True}
    await follows(queries[0], {}, left, model.seen)
    await follows(queries[1], {}, narrow, lambda row, _: model.seen(row, "SELECT") and where.of(row) is True)
    await follows(queries[2], first, left, model.seen)
    await client.close()


async def shown(server: PolicyServer, table: str, model: Model, where: Expression) -> None:
    """Each way to read the table shows what the model says."""
    left = model.visible()
    plain = f"SELECT id, owner, n, b FROM {table}"
    assert await server.rows("ada", f"{plain} ORDER BY id") == [list(left[key].values()) for key in sorted(left)]
    assert await server.rows("ada", f"SELECT count(*) FROM {table}") == [[len(left)]]
    narrow = [[key] for key in sorted(left) if where.of(left[key]) is True]
    assert await server.rows("ada", f"SELECT id FROM {table} WHERE {where.sql} ORDER BY id") == narrow
    for key in model.rows:
        found = [list(left[key].values())] if key in left else []
        assert await server.rows("ada", f"{plain} WHERE id = {key}") == found
    headers = server.headers("ada") | {"Accept": "application/x-ndjson"}
    answer = await server.client.post(f"{server.running.http_url}/v1/sql", json={"sql": plain}, headers=headers)
    exported = [json.loads(line) for line in answer.text.splitlines()]
    assert sorted(exported, key=lambda row: int(row["id"])) == [left[key] for key in sorted(left)]
    everything = [list(model.rows[key].values()) for key in sorted(model.rows)]
    assert await server.rows("admin", f"{plain} ORDER BY id") == everything


async def follows(
    query: Subscriber, first: dict[int, Row], expected: dict[int, Row], shows: Callable[[Row, str], bool]
) -> None:
    """What a live query has told comes to these rows in the end, and never showed another."""

    def told() -> dict[int, Row]:
        rows = first | {row["id"]: plain(row) for row in query.rows}
        for change in query.changes:
            row = plain(change["row"])
            if change["op"] == "delete":
                assert plain(rows.pop(row["id"])) == row
            else:
                assert shows(row, "SELECT"), change
                assert (row["id"] in rows) is (change["op"] == "update"), change
                rows[row["id"]] = row
        return rows

    await query.wait(lambda: told() == expected)


def plain(row: Row) -> Row:
    return {name: row[name] for name in ("id", "owner", "n", "b")}
