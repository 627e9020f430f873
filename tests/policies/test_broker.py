"""What the broker lets users hear of tables under policies: what these come to as keys, and else nothing raw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S
from policy_server import PolicyServer, policy_server

from kalam.rows.subject_key import key_token


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result("admin", "CREATE NAMESPACE app")
        yield server


class Ear:
    """A connection of a user, and what the broker refused it."""

    def __init__(self, server: PolicyServer, user: str) -> None:
        self._server, self._user = server, user
        self.refused: list[str] = []
        self.asked = 0
        self.heard: list[dict[str, Any]] = []
        self.subjects: set[str] = set()
        self.came = asyncio.Event()

    async def open(self) -> Ear:
        async def note(error: Exception) -> None:
            self.refused.append(str(error).lower())
            self.came.set()

        self.client = await self._server.connect(self._user, error_cb=note)
        return self

    async def may_hear(self, subject: str) -> bool:
        """Subscribe to it, and say whether the broker took that: it answers in order."""

        async def take(msg: Any) -> None:
            self.heard.append(json.loads(msg.data))
            self.subjects.add(msg.subject)
            self.came.set()

        await self.client.subscribe(subject, cb=take)
        self.asked += 1
        sentinel = f"never.{self.asked}"
        await self.client.subscribe(sentinel)
        async with asyncio.timeout(PATIENCE_S):
            while not self._told(sentinel):
                self.came.clear()
                await self.came.wait()
        return not self._told(subject)

    def _told(self, subject: str) -> bool:
        return any(f'"{subject.lower()}"' in error for error in self.refused)

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) < count:
                self.came.clear()
                await self.came.wait()


async def heard(server: PolicyServer, user: str, subjects: dict[str, bool]) -> None:
    ear = await Ear(server, user).open()
    for subject, allowed in subjects.items():
        assert await ear.may_hear(subject) is allowed, (user, subject, ear.refused)
    await ear.client.close()


TYPES = {
    "TEXT": (["ada", "a.b c", "-", "ä"], ["ben"]),
    "BIGINT": ([7, -1], [8]),
    "UUID": (["00000001-0000-4000-8000-0000000000ab"], ["00000001-0000-4000-8000-0000000000ac"]),
    "BOOLEAN": ([True], [False]),
    "DATE": (["2026-03-01"], ["2026-03-02"]),
}


@pytest.mark.parametrize("kind", TYPES)
async def test_a_policy_of_keys_is_what_the_broker_allows_and_no_more(server: PolicyServer, kind: str) -> None:
    mine, others = TYPES[kind]
    literals = [json.dumps(value).replace('"', "'") if kind != "TEXT" else f"'{value}'" for value in mine]
    await server.result(
        "admin",
        f"CREATE TABLE app.t (id INT PRIMARY KEY, k {kind}) WITH (subject_key = 'k');"
        f"CREATE STREAM TABLE app.s (id INT, k {kind}) WITH (subject_key = 'k');"
        "GRANT SELECT ON TABLE app.t TO ada, ben; GRANT SELECT ON TABLE app.s TO ada, ben",
    )
    for table in ("app.t", "app.s"):
        await server.policy(table, f"k IN ({', '.join(literals)})", to="ada")
        await server.policy(table, "k IS NOT NULL", name="q", to="ben")
        await server.secure(table)
    tokens = [key_token(value) for value in mine], [key_token(value) for value in others]
    subjects = {
        **{f"kalam.shared.app.t.*.{token}": True for token in tokens[0]},
        **{f"kalam.stream.app.s.{token}": True for token in tokens[0]},
        **{f"kalam.shared.app.t.*.{token}": False for token in tokens[1]},
        **{f"kalam.stream.app.s.{token}": False for token in tokens[1]},
        **dict.fromkeys(("kalam.shared.app.t.>", "kalam.shared.app.t.*.*", "kalam.shared.app.>"), False),
        **dict.fromkeys(("kalam.stream.app.s.>", "kalam.stream.app.s", "kalam.stream.app.s.*", "kalam.>"), False),
    }
    await heard(server, "ada", subjects)
    await heard(server, "ben", dict.fromkeys(subjects, False))


async def test_a_policy_of_a_text_that_is_no_key_keeps_nobody_out(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, k TEXT) WITH (subject_key = 'k'); GRANT SELECT ON TABLE app.t TO ada",
    )
    await server.policy("app.t", f"k IN ('ada', '{'x' * 129}')")
    await server.secure("app.t")
    for user in ("ada", "admin"):
        await heard(server, user, {"kalam.shared.app.t.*.ada": False, f"kalam.user.{user}.>": True})


async def test_who_hears_one_key_is_told_that_a_row_is_gone_and_not_what_it_has_become(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.t (id INT PRIMARY KEY, k TEXT, v TEXT) WITH (subject_key = 'k');"
        "GRANT ALL ON TABLE app.t TO ada",
    )
    await server.policy("app.t", "k = CURRENT_USER()", to="ada")
    await server.policy("app.t", "true", name="all", to="admin")
    await server.secure("app.t")
    ear = await Ear(server, "ada").open()
    assert await ear.may_hear("kalam.shared.app.t.*.ada")
    for statement in (
        "INSERT INTO app.t VALUES (1, 'ada', 'one'), (2, 'ben', 'secret')",
        "UPDATE app.t SET v = 'two' WHERE id = 1",
        "UPDATE app.t SET k = 'ben', v = 'secret' WHERE id = 1",
        "UPDATE app.t SET v = 'secret'",
        "UPDATE app.t SET k = 'ada', v = 'back' WHERE id = 2",
        "UPDATE app.t SET k = 'ada', v = 'own' WHERE id = 2",
        "INSERT INTO app.t VALUES (1, 'ada', 'merged') ON CONFLICT DO UPDATE SET k = excluded.k, v = excluded.v",
    ):
        await server.result("admin", statement)
    await ear.wait(6)
    told = [(event["op"], event["seq"], [row["v"] for row in event["rows"]]) for event in ear.heard]
    assert told == [
        ("insert", 1, ["one"]),
        ("update", 3, ["two"]),
        ("delete", 4, ["two"]),
        ("insert", 9, ["back"]),
        ("update", 10, ["own"]),
        ("insert", 12, ["merged"]),
    ]
    assert "secret" not in json.dumps(ear.heard)
    assert ear.subjects <= {f"kalam.shared.app.t.{op}.ada" for op in ("insert", "update", "delete")}


async def test_under_a_namespaces_wildcard_what_policies_hide_is_denied(server: PolicyServer) -> None:
    await server.result(
        "admin",
        "CREATE TABLE app.open (id INT PRIMARY KEY);"
        "CREATE TABLE app.t (id INT PRIMARY KEY, k TEXT) WITH (subject_key = 'k');"
        "CREATE STREAM TABLE app.s (id INT, k TEXT) WITH (subject_key = 'k'); GRANT SELECT ON NAMESPACE app TO ada",
    )
    ear = await Ear(server, "ada").open()
    assert await ear.may_hear("kalam.shared.app.>")
    await ear.client.close()
    for table in ("app.t", "app.s"):
        await server.policy(table, "k = CURRENT_USER() OR id = 1")
        await server.secure(table)
    ear = await Ear(server, "ada").open()
    assert await ear.may_hear("kalam.shared.app.>")
    assert await ear.may_hear("kalam.stream.app.>")
    assert not await ear.may_hear("kalam.shared.app.t.>")
    assert not await ear.may_hear("kalam.stream.app.s.>")
    await server.policy("app.t", "true", name="all", to="admin")
    await server.policy("app.s", "true", name="all", to="admin")
    ear = await Ear(server, "ada").open()  # policies were made, which has cut the one before
    assert await ear.may_hear("kalam.shared.app.>")
    assert await ear.may_hear("kalam.stream.app.>")
    await server.result("admin", "INSERT INTO app.t VALUES (1, 'ada'), (2, 'ben'); INSERT INTO app.s VALUES (1, 'ada')")
    await server.result("admin", "INSERT INTO app.open VALUES (1)")
    await ear.wait(1)
    assert ear.subjects == {"kalam.shared.app.open.insert"}
    for table in ("app.t", "app.s"):
        await server.policy(table, "k = CURRENT_USER()")
    await heard(
        server,
        "ada",
        {
            "kalam.shared.app.>": False,
            "kalam.shared.app.open.>": True,
            "kalam.shared.app.t.*.ada": True,
            "kalam.shared.app.t.>": False,
            "kalam.stream.app.s.ada": True,
            "kalam.stream.app.s.ben": False,
        },
    )
