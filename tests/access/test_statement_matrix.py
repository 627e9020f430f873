"""Who may carry out which statement: every statement of the language, asked at each door by somebody of each kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import get_args

import pytest
from guarded_world import INSIDE, OUTSIDE, World, user_of
from patience import PATIENCE_S

from kalam.sql import parse_statement, split
from kalam.sql.access.statements import AccessStatement
from kalam.sql.text.statements import OnAccess, Statement

CODES = {
    "+": {"ok"},
    "-": {"permission_denied"},
    "0": {"table_not_found", "namespace_not_found", "not_found"},
    "u": {"unsupported"},
}
"""``+`` it is carried out, ``-`` it is denied, ``0`` what it is about does not exist for them, ``u`` nobody may."""

TABLE = """
none reader writer owner member admin trusted

-- reading
0 + - + + + 0   SELECT v FROM lab.t WHERE id = 1
0 + - + + + 0   SELECT count(*) FROM lab.t
0 + - + + + 0   SELECT v FROM lab.notes
0 + - + + + -   SELECT v FROM lab.logs
0 0 0 0 0 + 0   SELECT bars FROM vault.gold WHERE id = 1
0 0 0 0 0 + 0   SELECT (SELECT max(bars) FROM vault.gold)
0 + - + + + 0   EXPLAIN SELECT v FROM lab.t
0 + - + + + 0   SUBSCRIBE TO SELECT v FROM lab.t
0 + + + + + 0   DESCRIBE lab.t
0 + + + + + 0   DESCRIBE TABLE lab.t HISTORY
0 + + + + + 0   SHOW STATS FOR TABLE lab.t
0 + + + + + 0   SHOW CREATE TABLE lab.t
0 0 0 0 0 + 0   DESCRIBE vault.gold
+ + + + + + +   SHOW TABLES
0 + + + + + +   SHOW TABLES IN lab
0 0 0 0 0 + 0   SHOW TABLES IN vault
+ + + + + + +   SHOW NAMESPACES
+ + + + + + +   SHOW JOBS
+ + + + + + +   SHOW QUERIES
+ + + + + + +   SHOW LIVE QUERIES
+ + + + + + +   SHOW LAKE
0 + + + + + +   USE lab
0 0 0 0 0 + 0   USE vault

-- writing
0 - + + - + 0   INSERT INTO lab.t VALUES (100, 'x')
0 - + + - + 0   INSERT INTO lab.t VALUES (1, 'x') ON CONFLICT (id) DO NOTHING
0 - - + - + 0   INSERT INTO lab.t VALUES (100, 'x') ON CONFLICT (id) DO UPDATE SET v = excluded.v
0 - - + - + 0   INSERT INTO lab.t VALUES (100, 'x') RETURNING v
0 - - + - + 0   INSERT INTO lab.spare SELECT id, v FROM lab.t
0 - + + - + 0   INSERT INTO lab.notes VALUES (100, 'x')
0 - + + - + -   INSERT INTO lab.logs VALUES (100, 'x')
0 - + + - + 0   UPDATE lab.spare SET v = 'x'
0 - - + - + 0   UPDATE lab.t SET v = 'x' WHERE id = 100
0 - - + - + 0   UPDATE lab.spare SET v = v
0 - + + - + 0   DELETE FROM lab.spare
0 - - + - + 0   DELETE FROM lab.t WHERE id = 100
0 - - + - + 0   DELETE FROM lab.spare RETURNING id
0 0 0 0 0 + 0   INSERT INTO vault.gold VALUES (100, 'x')
0 0 0 0 0 + 0   DELETE FROM vault.gold WHERE id = 100

-- tables and namespaces; {table} is lab.t, or a new one of the owner's where it is carried out
- - - - - + -   CREATE NAMESPACE fresh
- - - - - + -   DROP NAMESPACE doomed CASCADE
0 - - + - + -   CREATE TABLE lab.fresh (id INT PRIMARY KEY)
0 - - - - + -   CREATE TABLE lab.fresh (id INT PRIMARY KEY) WITH (LOCATION = '{folder}/elsewhere')
0 - - + - + 0   DROP TABLE {table}
+ + + + + + +   DROP TABLE IF EXISTS lab.nothing
0 - - + - + 0   ALTER TABLE {table} ADD COLUMN w INT
0 - - + - + 0   ALTER TABLE {table} DROP COLUMN v
0 - - - - + 0   ALTER TABLE {table} OWNER TO bystander
0 - - + - + 0   FLUSH TABLE {table}
+ + + + + + +   FLUSH ALL TABLES
0 + + + + + +   FLUSH ALL TABLES IN lab
0 - - + - + 0   COMPACT TABLE {table}
0 - - + - + 0   CHECK TABLE {table}
0 - - + - + 0   REFRESH LAKE FOR TABLE {table}
+ + + + + + +   REFRESH LAKE
- - - - - 0 -   KILL JOB 'nothing'
0 0 0 0 0 0 0   KILL QUERY 'nothing'
0 0 0 0 0 0 0   KILL LIVE QUERY 'nothing'
- - - - - + -   EXECUTE AS USER 'reader' SELECT 1
- - - - - u -   EXECUTE AS USER 'reader' SHOW USERS

-- users and rights
- - - - - + -   CREATE USER fresh PASSWORD 'a password of fresh'
- - - - - + -   ALTER USER bystander LOCK
- - - - - + -   ALTER USER bystander PASSWORD 'another good password'
+ + + + + + +   ALTER USER {me} PASSWORD 'a right good password'
- - - - - + -   ALTER USER {me} ADMIN
- - - - - + -   DROP USER doomed
- - - - - + -   CREATE ROLE fresh
- - - - - + -   DROP ROLE doomed
- - - - - + -   GRANT readers TO bystander
- - - - - + -   REVOKE readers FROM bystander
0 - - + - + 0   GRANT SELECT ON TABLE lab.t TO bystander
0 - - + - + 0   REVOKE SELECT ON TABLE lab.t FROM bystander
0 - - - - + -   GRANT SELECT ON NAMESPACE lab TO bystander
0 - - - - + -   REVOKE SELECT ON NAMESPACE lab FROM bystander
0 - - - - + -   GRANT JETSTREAM ON TABLE lab.logs TO bystander
0 0 0 0 0 + 0   GRANT SELECT ON TABLE vault.gold TO bystander
+ + + + + + +   CREATE TOKEN 'fresh'
- - - - - + -   CREATE TOKEN 'fresh' FOR bystander
0 0 0 0 0 0 0   DROP TOKEN 'nothing'
- - - - - + -   DROP TOKEN 'doomed' FOR bystander
+ + + + + + +   SHOW USERS
+ + + + + + +   SHOW ROLES
+ + + + + + +   SHOW GRANTS
0 + + + + + 0   SHOW GRANTS ON TABLE lab.t
+ + + + + + +   SHOW TOKENS
+ + + + + + +   SHOW SESSIONS
0 0 0 0 0 0 0   KILL SESSION 'nothing'
"""

BEFORE = {
    "DROP NAMESPACE doomed CASCADE": "CREATE NAMESPACE doomed",
    "DROP USER doomed": "CREATE USER doomed",
    "DROP ROLE doomed": "CREATE ROLE doomed",
    "REVOKE readers FROM bystander": "GRANT readers TO bystander",
    "DROP TOKEN 'doomed' FOR bystander": "CREATE TOKEN 'doomed' FOR bystander",
}
"""What an administrator does before a statement is carried out."""
AFTER = {
    "CREATE NAMESPACE fresh": "DROP NAMESPACE fresh",
    "CREATE USER": "DROP USER fresh",
    "CREATE ROLE": "DROP ROLE fresh",
    "CREATE TABLE": "DROP TABLE lab.fresh",
    "CREATE TOKEN 'fresh' FOR": "DROP TOKEN 'fresh' FOR bystander",
    "CREATE TOKEN 'fresh'": "DROP TOKEN 'fresh' FOR {me}",
    "ALTER USER bystander LOCK": "ALTER USER bystander UNLOCK",
    "GRANT readers": "REVOKE readers FROM bystander",
    "GRANT SELECT ON NAMESPACE": "REVOKE SELECT ON NAMESPACE lab FROM bystander",
    "GRANT SELECT ON TABLE lab.t": "REVOKE SELECT ON TABLE lab.t FROM bystander",
    "GRANT SELECT ON TABLE vault.gold": "REVOKE SELECT ON TABLE vault.gold FROM bystander",
    "GRANT JETSTREAM": "REVOKE JETSTREAM ON TABLE lab.logs FROM bystander",
    "INSERT INTO lab.t": "DELETE FROM lab.t WHERE id > 2",
    "INSERT INTO lab.spare": "DELETE FROM lab.spare",
    "INSERT INTO vault.gold": "DELETE FROM vault.gold WHERE id > 1",
}
"""What an administrator does after a statement that begins so was carried out, the first that fits."""


@dataclass(frozen=True)
class Line:
    """A statement, and what it is answered to each of ``INSIDE``."""

    text: str
    expected: str

    def of(self, person: str) -> str:
        return self.expected[INSIDE.index(person)]


def lines() -> list[Line]:
    """The lines of the table."""
    found = []
    head, *rest = [line for line in TABLE.strip().splitlines() if line and not line.startswith("--")]
    assert tuple(head.split()) == INSIDE
    for line in rest:
        cells, text = line[: 2 * len(INSIDE)].split(), line[2 * len(INSIDE) :].strip()
        assert len(cells) == len(INSIDE), line
        found.append(Line(text, "".join(cells)))
    return found


def kind_of(line: Line) -> str:
    [text] = split(line.text.format(table="lab.t", me="somebody", folder="/tmp"))
    return type(parse_statement(text)).__name__


def test_every_statement_of_the_language_has_a_line() -> None:
    language = {*get_args(Statement), *get_args(AccessStatement)} - {OnAccess}
    assert {kind_of(line) for line in lines()} == {kind.__name__ for kind in language}


@pytest.mark.parametrize("person", INSIDE)
def test_each_may_what_the_table_says(world: World, person: str) -> None:
    wrong = []
    for line in lines():
        expected, code = line.of(person), carried_out(world, person, line)
        if code not in CODES[expected]:
            wrong.append(f"{line.text}: {code} instead of {expected}")
    assert wrong == []


def carried_out(world: World, person: str, line: Line) -> str:
    """The code with which somebody is answered; what was changed is as it was before."""
    admin, me = world.admin, user_of(person)
    carried = line.of(person) == "+"
    new = carried and "{table}" in line.text
    if new:
        admin.rows(
            "CREATE TABLE lab.doomed (id INT PRIMARY KEY, v TEXT); INSERT INTO lab.doomed VALUES (1, 'x');"
            "ALTER TABLE lab.doomed OWNER TO owner"
        )
    if carried and line.text in BEFORE:
        admin.rows(BEFORE[line.text])
    code = world.asker(person).code(filled(world, person, line, table="lab.doomed" if new else "lab.t"))
    if new:
        admin.rows("DROP TABLE IF EXISTS lab.doomed")
    undo = next((sql for begin, sql in AFTER.items() if line.text.startswith(begin)), None)
    if code == "ok" and undo is not None:
        admin.rows(undo.format(me=me))
    if line.text.startswith("SUBSCRIBE"):
        for [query, *_] in admin.rows("SHOW LIVE QUERIES"):
            admin.rows(f"KILL LIVE QUERY '{query}'")
    return code


def filled(world: World, person: str, line: Line, table: str = "lab.t") -> str:
    return line.text.format(table=table, me=user_of(person), folder=world.server.data_dir)


def changes_nothing(line: Line) -> bool:
    """Whether a statement can be carried out again and again."""
    return line.text.split()[0] in ("SELECT", "EXPLAIN", "DESCRIBE", "SHOW", "USE", "FLUSH", "REFRESH", "EXECUTE")


@pytest.mark.parametrize("person", INSIDE)
def test_a_streamed_answer_has_no_more_than_a_whole_one(world: World, person: str) -> None:
    wrong = []
    for line in lines():
        if (expected := line.of(person)) == "+" and not changes_nothing(line):
            continue
        answer = world.asker(person).answer(filled(world, person, line), Accept="application/x-ndjson")
        code = answer.json()["code"] if answer.status_code >= 400 else "ok"
        if code not in CODES[expected]:
            wrong.append(f"{line.text}: {code} instead of {expected}")
    assert wrong == []


@pytest.mark.parametrize("person", INSIDE)
async def test_over_nats_each_may_the_same(world: World, person: str) -> None:
    wrong = []
    async with world.plain(person) as plain:
        for line in lines():
            if (expected := line.of(person)) == "+" and not changes_nothing(line):
                continue
            body = json.dumps({"sql": filled(world, person, line)}).encode()
            reply = await plain.client.request(f"kalam.api.{user_of(person)}.sql", body, timeout=PATIENCE_S)
            code = json.loads(reply.data).get("code", "ok")
            if code not in CODES[expected]:
                wrong.append(f"{line.text}: {code} instead of {expected}")
    assert wrong == []


@pytest.mark.parametrize("person", OUTSIDE)
def test_who_is_not_let_in_carries_out_nothing(world: World, person: str) -> None:
    asker = world.asker(person)
    for line in lines():
        answer = asker.answer(filled(world, person, line))
        assert answer.status_code in (401, 429), (line.text, answer.text)
        assert "results" not in answer.json()
