"""Who may ask, hear and say what at the broker: each subject that Kalam has, tried by somebody of each kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from guarded_broker import refused
from guarded_world import INSIDE, OUTSIDE, PASSWORD, World, user_of
from patience import PATIENCE_S

from kalam_nats.door.discovery import TYPES
from kalam_nats.subjects import Subjects

SUBJECTS = Subjects()
CODES = {
    "+": {"ok"},
    "-": {"permission_denied"},
    "0": {"table_not_found", "namespace_not_found"},
    "n": {"not_found"},
}

REQUESTS = """
none reader writer owner member admin trusted

0 - + + - + 0   insert_subject
+ + + + + + +   sql_subject
+ + + + + + +   info_subject
0 + - + + + 0   live_subject
0 + - + + + -   replay_subject
n n n n n n n   live_close_subject
"""
"""What a request is answered: ``+`` it is carried out, ``-`` denied; there is no table (``0``), no query (``n``)."""
BODIES: dict[str, dict[str, Any]] = {
    "insert_subject": {"id": 700, "v": "sent"},
    "sql_subject": {"sql": "SELECT 1"},
    "live_subject": {"sql": "SELECT v FROM lab.t"},
    "replay_subject": {"table": "lab.logs", "from_seq": 1},
    "live_close_subject": {},
    "info_subject": {},
}

HEARD = """
none reader writer owner member admin trusted

. + . + + + .   kalam.shared.lab.t.>
. + . + + + .   kalam.shared.lab.t.insert
. + . + + + .   kalam.stream.lab.logs
. . . . . + .   kalam.shared.lab.>
. . . . . + .   kalam.shared.vault.gold.>
. . . . . + .   kalam.stream.vault.alarms
. . . . . + .   kalam.shared.>
. . . . . + .   kalam.stream.>
+ + + + + + +   kalam.user.{me}.>
+ + + + + + +   kalam.user.{me}.lab.notes.insert
+ + + + + + +   kalam.user.{me}.lab.t.rejected
+ + + + + + +   kalam.live.{me}.>
+ + + + + + +   _INBOX.{me}.>
. . . . . + .   kalam.event.>
. . . . . + .   kalam.event.table.created
. . . . . + .   kalam.event.rejected.lab.t
. . . . . . .   kalam.user.keeper.>
. . . . . . .   kalam.user.*.vault.diary.insert
. . . . . . .   kalam.live.keeper.>
. . . . . . .   kalam.live.*.1
. . . . . . .   kalam.api.>
. . . . . . .   kalam.api.{me}.>
. . . . . . .   kalam.api.keeper.sql
. . . . . . .   _INBOX.keeper.>
. . . . . . .   _INBOX.>
. . . . . . .   $SYS.>
. . . . . . .   $SYS.REQ.USER.AUTH
. . . . . . .   $JS.API.>
. . . . . . .   $SRV.PING
. . . . . . .   $SRV.>
. . . . . . .   $MQTT.>
. . . . . . .   $KV.>
. . . . . . .   >
. . . . . . .   *.>
. . . . . . .   kalam.>
. . . . . . .   kalam.*.>
"""
"""Subscriptions: ``+`` the broker takes one, ``.`` it refuses it."""

SAID = """
none reader writer owner member admin trusted

. . . . . . .   change_subject
. . . . . . .   stream_event_subject
. . . . . . .   rejected_subject
. . . . . . .   event_subject
. . . . . . .   live_messages_subject
. . . . . . .   kalam.user.{me}.lab.notes.insert
. . . . . . .   kalam.live.{me}.1
. . . . . . .   kalam.api.keeper.sql
. . . . . . .   kalam.api.keeper.insert.lab.t
. . . . . . .   kalam.api.keeper.live.1.close
. . . . . . .   _INBOX.{me}.1
. . . . . . .   _INBOX.keeper.1
. . . . . . .   $SRV.PING
. . . . . . .   $SRV.INFO.kalam
. . . . . . .   $SRV.STATS
. . . . . . .   $SYS.REQ.USER.INFO
. . . . . . .   $SYS.REQ.USER.AUTH
. . . . . . .   $SYS.REQ.ACCOUNT.PING.CONNZ
. . . . . . .   $SYS.REQ.SERVER.PING
. . . . . . .   $SYS.DEBUG.SUBSCRIBERS
. . . . . . +   $JS.API.INFO
. . . . . . .   $JS.API.STREAM.NAMES
. . . . . . .   $JS.API.STREAM.LIST
. . . . . . +   $JS.API.STREAM.INFO.KALAM-lab-logs
. . . . . . +   $JS.API.DIRECT.GET.KALAM-lab-logs
. . . . . . +   $JS.API.STREAM.MSG.GET.KALAM-lab-logs
. . . . . . +   $JS.API.CONSUMER.CREATE.KALAM-lab-logs
. . . . . . +   $JS.API.CONSUMER.NAMES.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.CREATE.MINE
. . . . . . .   $JS.API.STREAM.UPDATE.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.PURGE.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.DELETE.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.MSG.DELETE.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.SNAPSHOT.KALAM-lab-logs
. . . . . . .   $JS.API.STREAM.INFO.KALAM-CHANGES
. . . . . . .   $JS.API.STREAM.INFO.KALAM-vault-alarms
. . . . . . .   $JS.API.DIRECT.GET.KALAM-CHANGES
. . . . . . .   $JS.API.DIRECT.GET.KALAM-USER-CHANGES
. . . . . . .   $JS.API.CONSUMER.CREATE.KALAM-USER-CHANGES
. . . . . . .   $JS.API.CONSUMER.MSG.NEXT.KALAM-CHANGES.c
. . . . . . .   $JS.API.CONSUMER.CREATE.KALAM-vault-alarms
"""
"""Messages that are no requests: ``+`` the broker takes one, ``.`` it refuses it. A method's name stands for what it
gives for ``lab`` and for ``keeper``."""


@dataclass(frozen=True)
class Line:
    name: str
    cells: tuple[str, ...]

    def of(self, person: str) -> str:
        return self.cells[INSIDE.index(person)]


def lines(table: str) -> list[Line]:
    head, *rest = [line.split() for line in table.strip().splitlines() if line]
    assert tuple(head) == INSIDE
    return [Line(name, tuple(cells)) for *cells, name in rest]


def published(method: str, user: str) -> list[str]:
    """What a method of ``Subjects`` gives that names what Kalam publishes."""
    match method:
        case "change_subject":
            owners = ("", user, "keeper")
            return [SUBJECTS.change_subject(owner, "lab", "t", kind) for owner in owners for kind in OPERATIONS]
        case "stream_event_subject":
            return [SUBJECTS.stream_event_subject("lab", "logs", key) for key in (None, "k")]
        case "rejected_subject":
            return [SUBJECTS.rejected_subject("lab", "t", owner) for owner in ("", user, "keeper")]
        case "event_subject":
            return [SUBJECTS.event_subject(what) for what in ("table.created", "table.dropped", "job.finished")]
        case "live_messages_subject":
            return [SUBJECTS.live_messages_subject(owner, "1") for owner in (user, "keeper")]
        case _:
            return [method.format(me=user)]


OPERATIONS = ("insert", "update", "delete")


def test_every_subject_has_a_line() -> None:
    methods = {name for name in dir(Subjects) if name.endswith("_subject") and not name.startswith("parse_")}
    assert methods <= {line.name for table in (REQUESTS, SAID) for line in lines(table)}
    assert {f"$SRV.{verb}" for verb in TYPES} <= {line.name.removesuffix(".kalam") for line in lines(SAID)}
    streams = {SUBJECTS.changes_stream, SUBJECTS.user_changes_stream, SUBJECTS.stream_name("vault", "alarms")}
    assert streams <= {line.name.rpartition(".")[2] for line in lines(SAID)}


@pytest.mark.parametrize("person", OUTSIDE)
async def test_who_is_not_let_in_has_no_connection(world: World, person: str) -> None:
    user = user_of(person)
    secret = {"nobody": {}, "wrong": {"user": user, "password": "a wrong password"}}
    assert await refused(world.server.nats_url, **secret.get(person, {"user": user, "password": PASSWORD}))


@pytest.mark.parametrize("person", INSIDE)
async def test_each_request_is_answered_as_the_table_says(world: World, person: str) -> None:
    user, wrong = user_of(person), []
    names = {"insert_subject": (user, "lab", "t"), "live_close_subject": (user, "nothing")}
    async with world.plain(person) as plain:
        for line in lines(REQUESTS):
            subject = getattr(SUBJECTS, line.name)(*names.get(line.name, (user,)))
            reply = await plain.client.request(subject, json.dumps(BODIES[line.name]).encode(), timeout=PATIENCE_S)
            answer = json.loads(reply.data)
            if answer.get("code", "ok") not in CODES[line.of(person)]:
                wrong.append(f"{subject}: {answer}")
            if line.name == "insert_subject" and "code" not in answer:
                world.admin.rows("DELETE FROM lab.t WHERE id = 700")
    assert wrong == []


@pytest.mark.parametrize("person", INSIDE)
async def test_each_hears_what_the_table_says(world: World, person: str) -> None:
    async with world.plain(person) as plain:
        wrong = [
            line.name
            for line in lines(HEARD)
            if await plain.may_hear(line.name.format(me=user_of(person))) != (line.of(person) == "+")
        ]
        queue = [line.name.format(me=user_of(person)) for line in lines(HEARD) if line.of(person) == "."]
        before = len(plain.errors)
        for subject in queue:
            await plain.client.subscribe(subject, queue="kalam")
        await plain.settle()
        assert len(plain.errors) == before + len(queue)
    assert wrong == []


@pytest.mark.parametrize("person", INSIDE)
async def test_each_says_what_the_table_says(world: World, person: str) -> None:
    async with world.plain(person) as plain:
        wrong = [
            subject
            for line in lines(SAID)
            for subject in published(line.name, user_of(person))
            if await plain.may_say(subject) != (line.of(person) == "+")
        ]
    assert wrong == []
