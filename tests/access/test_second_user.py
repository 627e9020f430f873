"""A second user tries everything to learn of, or to touch, what is another's: the answers are those to what is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from guarded_broker import Plain
from guarded_world import Asker, World
from patience import PATIENCE_S
from statement_table import lines

SLOW = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a.value * b.value = 7"
MORE = (
    "SELECT * FROM lab.t JOIN {} ON true",
    "WITH x AS (SELECT * FROM {}) SELECT * FROM lab.t",
    "SELECT v FROM lab.t WHERE id IN (SELECT id FROM {})",
    "SELECT v FROM lab.t UNION SELECT bars FROM {}",
    "EXPLAIN SELECT * FROM {}",
    "EXPLAIN ANALYZE SELECT * FROM {}",
    "EXPLAIN VERBOSE SELECT * FROM {}",
    "INSERT INTO lab.spare SELECT id, bars FROM {}",
    "UPDATE lab.spare SET v = (SELECT max(bars) FROM {})",
    "UPDATE lab.spare SET v = 'x' WHERE id IN (SELECT id FROM {})",
    "DELETE FROM lab.spare WHERE id IN (SELECT id FROM {})",
    "INSERT INTO {} SELECT 1",
    "ALTER TABLE {} OWNER TO reader",
    "SHOW GRANTS ON TABLE {}",
)


def asked(asker: Asker, sql: str) -> tuple[int, str]:
    answer = asker.answer(sql)
    return answer.status_code, answer.text


def test_what_is_hidden_is_answered_as_what_is_not_there(world: World) -> None:
    """Statement by statement, down to the letter: only the name differs."""
    reader = world.asker("reader")
    texts = [line.text for line in lines() if "lab.t" in line.text or "{table}" in line.text]
    about_table = [text.replace("lab.t", "{}").replace("{table}", "{}") for text in texts if "{me}" not in text]
    for text in (*about_table, *MORE):
        if " IF EXISTS " in text:
            continue
        hidden = asked(reader, text.replace("{}", "vault.gold"))
        missing = asked(reader, text.replace("{}", "empty.gold"))
        assert hidden[0] == missing[0] >= 400, text
        assert hidden[1].replace("vault", "empty") == missing[1], text
    for text in ("USE {}", "SHOW TABLES IN {}", "FLUSH ALL TABLES IN {}", "CREATE TABLE {}.x (id INT PRIMARY KEY)"):
        hidden, missing = (asked(reader, text.replace("{}", name)) for name in ("vault", "empty"))
        assert hidden[1].replace("vault", "empty") == missing[1], text
    near = [asked(reader, f"SELECT * FROM {name}")[1] for name in ("vaul.gold", "vault.gol", "lab.gold")]
    assert not [text for text in near if "did you mean vault" in text]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_over_http_what_is_hidden_is_answered_as_what_is_not_there(world: World, method: str) -> None:
    reader = world.asker("reader")
    for path, more in (
        ("/v1/tables/{}/gold/rows", {}),
        ("/v1/live?sql=SELECT+*+FROM+{}.gold", {}),
        ("/v1/live?sql=SELECT+*+FROM+{}.gold&from_seq=1&table_id=1", {}),
        ("/v1/live?sql=SELECT+*+FROM+{}.gold", {"Last-Event-ID": "1-1"}),
        ("/iceberg/v1/namespaces/{}/tables/gold", {}),
    ):
        asked: dict[str, Any] = {"headers": more} | ({"json": [{"id": 1}]} if method == "POST" else {})
        hidden, missing = (reader.send(method, path.replace("{}", name), **asked) for name in ("vault", "empty"))
        assert hidden.status_code == missing.status_code >= 400
        assert hidden.text.replace("vault", "empty") == missing.text


async def answered(plain: Plain, subject: str, body: Any, **options: Any) -> dict[str, Any]:
    reply = await plain.client.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S, **options)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def named(body: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {name: str(value).replace("{}", namespace) if name != "from_seq" else value for name, value in body.items()}


async def test_over_nats_what_is_hidden_is_answered_as_what_is_not_there(world: World) -> None:
    async with world.plain("reader") as reader:
        for subject, body in (
            ("insert.{}.gold", {"id": 1}),
            ("live", {"sql": "SELECT * FROM {}.gold"}),
            ("live", {"sql": "SELECT * FROM {}.gold", "from_seq": 1}),
            ("replay", {"table": "{}.alarms", "from_seq": 1}),
        ):
            hidden, missing = [
                await answered(
                    reader,
                    f"kalam.api.reader.{subject}".replace("{}", name),
                    json.loads(json.dumps(body).replace("{}", name)),
                )
                for name in ("vault", "empty")
            ]
            assert json.dumps(hidden).replace("vault", "empty") == json.dumps(missing)


# What is running, and what is remembered.


@contextmanager
def running(asker: Asker, spectator: Asker, query_id: str) -> Iterator[threading.Thread]:
    """A slow query of somebody's, which is ended by an administrator if it is still there."""
    thread = threading.Thread(target=asker.answer, args=(SLOW,), kwargs={"X-Kalam-Query-Id": query_id})
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while query_id not in str(spectator.rows("SHOW QUERIES")):
        assert time.monotonic() < deadline
    yield thread
    spectator.code(f"KILL QUERY '{query_id}'")
    thread.join(PATIENCE_S)


def test_a_query_of_anothers_is_neither_seen_nor_ended_nor_in_the_way(world: World) -> None:
    victim, spy = world.user("runner"), world.user("spy")
    with running(victim, world.admin, "mine") as thread:
        assert "mine" not in str(spy.rows("SHOW QUERIES")) + str(spy.rows("SELECT * FROM system.queries"))
        assert spy.code("KILL QUERY 'mine'") == "not_found"
        known, unknown = (spy.send("DELETE", f"/v1/queries/{name}") for name in ("mine", "none"))
        assert (known.status_code, known.text.replace("mine", "none")) == (404, unknown.text)
        assert spy.code("SELECT 1", **{"X-Kalam-Query-Id": "mine"}) == "ok"
        assert victim.code("SELECT 1", **{"X-Kalam-Query-Id": "mine"}) == "already_exists"
        assert thread.is_alive()
        with running(spy, spy, "mine") as other:
            assert spy.send("DELETE", "/v1/queries/mine").status_code == 204
            other.join(PATIENCE_S)
            assert not other.is_alive()
        assert thread.is_alive()
    assert not thread.is_alive()  # whom an administrator ends


async def test_a_live_query_of_anothers_is_neither_seen_nor_ended(world: World) -> None:
    world.user("listener", "GRANT ALL ON TABLE lab.notes TO listener")
    world.user("snoop", "GRANT ALL ON TABLE lab.notes TO snoop")
    snooping = world.asker("snoop")
    async with world.plain("listener") as listener, world.plain("snoop") as snoop:
        inbox = await listener.client.subscribe("kalam.live.listener.>")
        mine = await answered(listener, "kalam.api.listener.live", {"sql": "SELECT v FROM lab.notes"})
        unknown = await answered(snoop, "kalam.api.snoop.live.nothing.close", {})
        known = await answered(snoop, f"kalam.api.snoop.live.{mine['id']}.close", {})
        assert json.dumps(known).replace(mine["id"], "nothing") == json.dumps(unknown)
        assert known["code"] == "not_found"
        assert snooping.code(f"KILL LIVE QUERY '{mine['id']}'") == "not_found"
        assert mine["id"] not in str(snooping.rows("SHOW LIVE QUERIES"))
        assert not await snoop.may_hear(mine["subject"])
        heard = await snoop.client.subscribe("kalam.live.snoop.>")
        own = await answered(snoop, "kalam.api.snoop.live", {"sql": "SELECT v FROM lab.notes", "from_seq": 0})
        assert own["id"] != mine["id"]
        world.asker("listener").rows("INSERT INTO lab.notes VALUES (1, 'of listener')")
        snooping.rows("INSERT INTO lab.notes VALUES (1, 'of snoop')")
        await taken_until(inbox, b"of listener")
        assert b"of listener" not in await taken_until(heard, b"of snoop")


async def taken_until(subscription: Any, mark: bytes) -> bytes:
    """What came up to the message with a mark in it."""
    taken = b""
    while mark not in taken:
        taken += (await subscription.next_msg(PATIENCE_S)).data
    return taken


@pytest.mark.parametrize("table", ["spare", "logs"])
async def test_the_same_message_id_of_two_users_is_two_messages(world: World, table: str) -> None:
    names = [f"{name}_{table}" for name in ("one", "two")]
    for name in names:
        world.user(name, f"GRANT INSERT ON TABLE lab.{table} TO {name}")
    answers = []
    for number, name in enumerate(names):
        async with world.plain(name) as plain:
            body, headers = {"id": 900 + number, "v": name}, {"Nats-Msg-Id": "the-same"}
            subject = f"kalam.api.{name}.insert.lab.{table}"
            first, again = [await answered(plain, subject, body, headers=headers) for _ in range(2)]
            assert first == again
            answers.append(first)
            sent = world.asker(name).send(
                "POST",
                f"/v1/tables/lab/{table}/rows",
                json=[{"id": 910 + number, "v": "sent"}],
                headers={"Idempotency-Key": "the-same"},
            )
            assert sent.json()["rows"] == 1
    assert answers[0] != answers[1]
    stored = world.asker("owner").rows(f"SELECT id FROM lab.{table} WHERE id >= 900 ORDER BY id")
    assert stored == [[900], [901], [910], [911]]


async def test_what_was_refused_of_ones_inserts_is_heard_by_nobody_else(world: World) -> None:
    world.user("clumsy", "GRANT ALL ON TABLE lab.t TO clumsy")
    async with world.plain("clumsy") as clumsy, world.plain("reader") as reader, world.plain("owner") as owner:
        own = await clumsy.client.subscribe("kalam.user.clumsy.>")
        others = [await plain.client.subscribe("kalam.shared.lab.t.>") for plain in (reader, owner)]
        for plain in (clumsy, reader, owner):
            await plain.settle()
        await clumsy.client.publish("kalam.api.clumsy.insert.lab.t", b'{"id": "bullion"}')
        assert (await own.next_msg(PATIENCE_S)).data == b'{"id": "bullion"}'
        world.asker("owner").rows("INSERT INTO lab.t VALUES (99, 'last'); DELETE FROM lab.t WHERE id = 99")
        for subscription in others:
            assert b"bullion" not in await taken_until(subscription, b"last")


# Sessions and tokens.


def test_sessions_and_tokens_of_anothers_are_not_there(world: World) -> None:
    victim, spy = world.user("holder"), world.user("thief")
    assert victim.send("POST", "/v1/login", json={"user": "holder", "password": "a right good password"}).is_success
    [[session, *_]] = victim.rows("SHOW SESSIONS")
    [[secret, token, *_]] = victim.rows("CREATE TOKEN 'ci'")
    for statement in (f"KILL SESSION '{session}'", "DROP TOKEN 'ci'"):
        assert spy.code(statement) == "not_found"
    known, unknown = (asked(spy, f"KILL SESSION '{name}'")[1] for name in (session, "nothing"))
    assert known == unknown
    assert spy.code("DROP TOKEN 'ci' FOR holder") == "permission_denied"
    for shown in ("SHOW TOKENS", "SHOW SESSIONS", "SELECT * FROM system.sessions", "SHOW USERS", "SHOW GRANTS"):
        assert "holder" not in str(spy.rows(shown)), shown
    forged = f"{secret[:-1]}{'a' if secret[-1] != 'a' else 'b'}"
    for wrong in (forged, f"kalam_{token}_", token):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert httpx.get(f"{world.server.http_url}/v1/me", headers=headers).status_code in (401, 429)
    assert victim.rows("SELECT 1") == [[1]]


# Numbers and places.


def test_how_much_others_have_and_where_is_not_told(world: World) -> None:
    world.asker("owner").rows("FLUSH TABLE lab.t")
    reader, folder = world.asker("reader"), str(world.server.data_dir)
    answers = [
        *(reader.answer(f"{words} lab.t") for words in ("DESCRIBE", "SHOW STATS FOR TABLE", "SHOW CREATE TABLE")),
        *(reader.answer(f"EXPLAIN {words} SELECT * FROM lab.t") for words in ("", "ANALYZE", "VERBOSE")),
        *(reader.send("GET", path) for path in ("/metrics", "/v1/overview", "/v1/catalogue", "/readyz")),
        reader.answer("SELECT * FROM system.tables"),
        reader.answer("SELECT CAST('x' AS INT) FROM lab.t"),
        reader.answer(f"SELECT * FROM '{folder}/shared/vault/gold/*.parquet'"),
        reader.answer(f"SELECT * FROM read_parquet('{folder}/shared/vault/gold/*.parquet')"),
        reader.answer("SELECT * FROM information_schema.tables"),
        reader.answer("SELECT * FROM pg_catalog.pg_class"),
    ]
    for answer in answers:
        text = answer.text.replace(f"{folder}/shared/vault/gold/*.parquet", "")  # as it was asked
        assert not [word for word in ("vault", folder, "shared/lab") if word in text], text
    for words in ("DESCRIBE", "SHOW STATS FOR TABLE"):
        rows = reader.rows(f"{words} lab.t")
        states = [row for row in rows if row[0] == "state" or words.startswith("SHOW")]
        assert states
        assert {row[2] if words == "DESCRIBE" else row[1] for row in states} == {None}
        assert words != "DESCRIBE" or all(row[3] == f"{row[1]} = NULL" for row in states)
    assert "table=" not in answers[6].text
    assert 'table="lab.logs"' in world.admin.send("GET", "/metrics").text


def test_a_location_is_shown_to_the_owner_and_administrators(world: World) -> None:
    folder = world.server.data_dir / "placed_elsewhere"
    world.admin.rows(
        f"CREATE TABLE lab.placed (id INT PRIMARY KEY) WITH (LOCATION = '{folder}');"
        "GRANT SELECT ON TABLE lab.placed TO reader; ALTER TABLE lab.placed OWNER TO owner"
    )
    for statement in ("SHOW CREATE TABLE lab.placed", "DESCRIBE lab.placed", "SELECT * FROM system.tables"):
        for who, shown in (("owner", True), ("admin", True), ("reader", False)):
            assert ("placed_elsewhere" in world.asker(who).answer(statement).text) is shown, (who, statement)
    world.admin.rows("DROP TABLE lab.placed")
