"""Who may carry out which statement: every statement of the language, asked at each door by somebody of each kind."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from guarded_world import INSIDE, OUTSIDE, World, user_of
from patience import PATIENCE_S
from statement_table import Line, lines

from kalam.sql import parse_statement, split
from kalam.sql.access.statements import AccessStatement
from kalam.sql.text.lexer import StatementText, read_tokens
from kalam.sql.text.statements import OnAccess, OnView, Statement
from kalam.sql.text.view_statements import ViewStatement
from kalam.sql_words import FUNCTIONS, KEYWORDS

CODES = {
    "+": {"ok"},
    "-": {"permission_denied"},
    "0": {"table_not_found", "namespace_not_found", "not_found"},
    "u": {"unsupported"},
}
"""``+`` it is carried out, ``-`` it is denied, ``0`` what it is about does not exist for them, ``u`` nobody may."""

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
    "CREATE VIEW": "DROP VIEW lab.fresh",
    "ALTER TABLE {table} RENAME TO": "DROP TABLE lab.renamed",
    "CREATE MATERIALIZED VIEW": "DROP MATERIALIZED VIEW lab.fresh",
    "CREATE EPHEMERAL MATERIALIZED VIEW": "DROP MATERIALIZED VIEW lab.fresh",
    "CREATE TOKEN 'fresh' FOR": "DROP TOKEN 'fresh' FOR bystander",
    "CREATE TOKEN 'fresh'": "DROP TOKEN 'fresh' FOR {me}",
    "ALTER USER bystander LOCK": "ALTER USER bystander UNLOCK",
    "GRANT readers": "REVOKE readers FROM bystander",
    "GRANT SELECT ON NAMESPACE": "REVOKE SELECT ON NAMESPACE lab FROM bystander",
    "GRANT SELECT ON TABLE lab.t": "REVOKE SELECT ON TABLE lab.t FROM bystander",
    "GRANT SELECT ON TABLE vault.gold": "REVOKE SELECT ON TABLE vault.gold FROM bystander",
    "CREATE POLICY fresh ON vault.gold": "DROP POLICY fresh ON vault.gold",
    "GRANT JETSTREAM": "REVOKE JETSTREAM ON TABLE lab.logs FROM bystander",
    "INSERT INTO lab.t": "DELETE FROM lab.t WHERE id > 2",
    "INSERT INTO lab.spare": "DELETE FROM lab.spare",
    "MERGE INTO lab.spare": "DELETE FROM lab.spare",
    "INSERT INTO vault.gold": "DELETE FROM vault.gold WHERE id > 1",
}
"""What an administrator does after a statement that begins so was carried out, the first that fits."""


def kind_of(line: Line) -> str:
    [text] = split(line.text.format(table="lab.t", view="lab.v", me="somebody", folder="/tmp"))
    return type(parse_statement(text)).__name__


def test_every_statement_of_the_language_has_a_line() -> None:
    parts = (Statement, AccessStatement, ViewStatement)
    language = {kind for part in parts for kind in get_args(part)} - {OnAccess, OnView}
    assert {kind_of(line) for line in lines()} == {kind.__name__ for kind in language}


def test_completion_offers_every_word_of_every_statement() -> None:
    tokens = [token for line in lines() for token in read_tokens(StatementText(line.text)) if token.text.isupper()]
    assert {token.word for token in tokens if token.word} - {*KEYWORDS, *map(str.upper, FUNCTIONS)} == set()


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
    new = carried and ("{table}" in line.text or "{view}" in line.text)
    if new and "{view}" in line.text:
        world.asker("owner").rows("CREATE MATERIALIZED VIEW lab.doomed AS SELECT id, v FROM lab.t")
    elif new:
        admin.rows(
            "CREATE TABLE lab.doomed (id INT PRIMARY KEY, v TEXT); INSERT INTO lab.doomed VALUES (1, 'x');"
            "ALTER TABLE lab.doomed OWNER TO owner"
        )
    if carried and line.text in BEFORE:
        admin.rows(BEFORE[line.text])
    code = world.asker(person).code(filled(world, person, line, *["lab.doomed"] * new))
    if new:
        admin.rows("DROP {} IF EXISTS lab.doomed".format("MATERIALIZED VIEW" if "{view}" in line.text else "TABLE"))
    undo = next((sql for begin, sql in AFTER.items() if line.text.startswith(begin)), None)
    if code == "ok" and undo is not None:
        admin.rows(undo.format(me=me))
    if line.text.startswith("SUBSCRIBE"):
        for [query, *_] in admin.rows("SHOW LIVE QUERIES"):
            admin.rows(f"KILL LIVE QUERY '{query}'")
    return code


def filled(world: World, person: str, line: Line, new: str | None = None) -> str:
    me, folder = user_of(person), world.server.data_dir
    return line.text.format(table=new or "lab.t", view=new or "lab.v", me=me, folder=folder)


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
def test_what_may_not_be_read_or_changed_is_not_described(world: World, person: str) -> None:
    asker = world.asker(person)
    for line in lines():
        if line.text.split()[0] not in ("SELECT", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "DESCRIBE"):
            continue
        if "STREAM" in line.text:  # a stream of others is looked for when the statement is run
            continue
        text = filled(world, person, line)
        many = asker.send("POST", "/v1/sql", json={"sql": text, "rows": [[]]})
        described = asker.send("POST", "/v1/sql", json={"sql": text, "describe": True})
        if line.of(person) == "+":
            assert described.status_code == 200, (line.text, described.text)
        elif line.of(person) != "u":
            assert described.json()["code"] in CODES[line.of(person)], (line.text, described.text)
            assert many.json()["code"] in CODES[line.of(person)] | {"unsupported"}, (line.text, many.text)


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
