"""What a user can neither hear nor say at the broker, tried by plain clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from guarded_broker import Guarded, Users, guarded_broker

from kalam.names import TableName
from kalam_nats.access.permissions import Reach, TableReach
from kalam_nats.subjects import Subjects

NOTES, LOGS, OTHER = (TableName("app", name) for name in ("notes", "logs", "other"))
SUBJECTS = Subjects()

PUBLISHED = [
    SUBJECTS.stream_event_subject("app", "logs"),
    SUBJECTS.stream_event_subject("app", "logs", "k"),
    *(SUBJECTS.change_subject("", "app", "notes", operation) for operation in ("insert", "update", "delete")),
    SUBJECTS.change_subject("", "app", "notes", "insert", "k"),
    *(SUBJECTS.change_subject(user, "app", "mine", "insert") for user in ("ada", "ben")),
    *(SUBJECTS.rejected_subject("app", "notes", owner) for owner in ("", "ada", "ben")),
    *(SUBJECTS.event_subject(what) for what in ("table.created", "table.dropped", "job.finished")),
    *(SUBJECTS.live_messages_subject(user, "1") for user in ("ada", "ben")),
]
"""Every kind of subject on which Kalam publishes."""

FOREIGN_REQUESTS = [
    SUBJECTS.insert_subject("ada", "app", "notes"),
    SUBJECTS.sql_subject("ada"),
    SUBJECTS.live_subject("ada"),
    SUBJECTS.live_close_subject("ada", "1"),
    SUBJECTS.info_subject("ada"),
    SUBJECTS.sql_subject("*"),
    "kalam.api.>",
    "kalam.api",
]

MACHINERY = [
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.PURGE.KALAM-CHANGES",
    "$JS.API.STREAM.DELETE.KALAM-CHANGES",
    "$JS.API.DIRECT.GET.KALAM-CHANGES",
    "$JS.API.STREAM.MSG.GET.KALAM-CHANGES",
    "$JS.API.CONSUMER.CREATE.KALAM-CHANGES.c",
    "$JS.API.CONSUMER.DURABLE.CREATE.KALAM-CHANGES.c",
    "$JS.API.CONSUMER.MSG.NEXT.KALAM-CHANGES.c",
    "$JS.ACK.KALAM-CHANGES.c.1.1.1.1.1",
    "$KV.bucket.key",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.USER.AUTH",
    "$SYS.DEBUG.SUBSCRIBERS",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.SERVER.X.KICK",
    "$SRV.PING",
    "$SRV.INFO.kalam",
    "_INBOX.ada.1",
    "_INBOX.ben.1",
    "_INBOX.x.1",
    "anything",
]

UNHEARD = [
    ">",
    "*",
    "kalam.>",
    "*.>",
    "kalam.*.>",
    "kalam.shared.>",
    "kalam.stream.>",
    "kalam.shared.app.>",
    "kalam.shared.*.notes.>",
    "kalam.shared.app.*.insert",
    "kalam.shared.app.other.>",
    "kalam.shared.app.notes2.insert",
    "kalam.stream.app.logs",
    "kalam.stream.app.logs.>",
    "kalam.stream.app.logs.*",
    "kalam.stream.app.logs.other",
    "kalam.user.>",
    "kalam.user.ada.>",
    "kalam.user.*.app.mine.insert",
    "kalam.live.>",
    "kalam.live.ada.>",
    "kalam.live.*.1",
    "kalam.event.>",
    "kalam.event.rejected.app.notes",
    "kalam.api.>",
    "kalam.api.ada.>",
    "kalam.api.ben.>",
    "kalam.api.*.sql",
    "_INBOX.>",
    "_INBOX.*.>",
    "_INBOX.ada.>",
    "_INBOX.ada.*",
    "$JS.>",
    "$JS.API.>",
    "$SYS.>",
    "$SYS.REQ.USER.AUTH",
    "$SRV.>",
    "$SRV.PING",
    "$KV.>",
    "$MQTT.>",
]


@pytest.fixture(scope="module")
def reach() -> dict[str, Reach]:
    tables = (TableReach(NOTES, stream=False), TableReach(LOGS, stream=True, keys=("k",)))
    hidden = (TableReach(OTHER, stream=False),)
    return {
        "ada": Reach(user="ada"),
        "ben": Reach(user="ben", tables=tables),
        "cleo": Reach(user="cleo", namespaces=frozenset({"app"}), hidden=hidden),
        "root": Reach(user="root", administers=True, hidden=hidden),
        "svc": Reach(user="svc", jetstream=(LOGS,)),
    }


@pytest.fixture
async def guarded(data_dir: Path, reach: dict[str, Reach]) -> AsyncIterator[Guarded]:
    async with guarded_broker(data_dir, Users(reach)) as broker:
        yield broker


async def test_a_user_says_nothing_but_their_own_requests(guarded: Guarded) -> None:
    everything = await guarded.kalam.client.subscribe(">")
    await guarded.kalam.client.flush()
    for name in ("ben", "root"):
        async with guarded.client(name) as plain:
            said = [subject for subject in (*PUBLISHED, *FOREIGN_REQUESTS, *MACHINERY) if await plain.may_say(subject)]
            assert said == []
            assert await plain.may_say(SUBJECTS.sql_subject(name))
    await guarded.kalam.client.flush()
    assert {message.subject for message in everything._pending_queue._queue} == {  # noqa: SLF001
        "kalam.api.ben.sql",
        "kalam.api.root.sql",
    }


async def test_a_user_hears_nothing_that_was_not_granted(guarded: Guarded) -> None:
    async with guarded.client("ben") as ben:
        assert [subject for subject in UNHEARD if await ben.may_hear(subject)] == []
        for subject in (
            "_INBOX.ben.>",
            "kalam.user.ben.>",
            "kalam.live.ben.1",
            "kalam.shared.app.notes.>",
            "kalam.shared.app.notes.insert.k",
            "kalam.stream.app.logs.k",
        ):
            assert await ben.may_hear(subject), subject


async def test_an_administrator_hears_tables_and_events_and_no_others_secrets(guarded: Guarded) -> None:
    async with guarded.client("root") as root:
        for subject in ("kalam.event.>", "kalam.shared.>", "kalam.stream.>", "kalam.shared.app.notes.*"):
            assert await root.may_hear(subject), subject
        private = ("kalam.user.", "kalam.live.", "kalam.api.", "_INBOX", "$", ">", "*", "kalam.>", "kalam.*.>")
        for subject in UNHEARD:
            if subject.startswith(private):
                assert not await root.may_hear(subject), subject


@pytest.mark.parametrize("name", ["cleo", "root"])
async def test_under_a_wildcard_nothing_is_heard_of_a_hidden_table(guarded: Guarded, name: str) -> None:
    async with guarded.client(name) as plain:
        heard = await plain.client.subscribe("kalam.shared.app.>")
        group = await plain.client.subscribe("kalam.shared.app.>", queue="kalam")
        assert not await plain.may_hear("kalam.shared.app.other.insert")
        for table in ("other", "notes", "other"):
            await guarded.kalam.client.publish(f"kalam.shared.app.{table}.insert", b"{}")
        await guarded.kalam.client.flush()
        await plain.settle()
        for subscription in (heard, group):
            assert (await subscription.next_msg(5)).subject == "kalam.shared.app.notes.insert"
            assert subscription.pending_msgs == 0


async def test_what_others_are_answered_is_not_heard_by_queue_groups_either(guarded: Guarded) -> None:
    async with guarded.client("ben") as ben:
        before = len(ben.errors)
        for subject in ("kalam.api.*.sql", "kalam.api.ada.sql", "_INBOX.ada.>", "kalam.live.ada.>"):
            await ben.client.subscribe(subject, queue="kalam")
        await ben.settle()
        assert len(ben.errors) == before + 4


async def test_a_trusted_service_reads_its_stream_alone(guarded: Guarded) -> None:
    jetstream = guarded.kalam.client.jetstream()
    for name, subject in (("KALAM-app-logs", "kalam.stream.app.logs.*"), ("KALAM-CHANGES", "kalam.shared.>")):
        await jetstream.add_stream(name=name, subjects=[subject], allow_direct=True)
    await jetstream.publish("kalam.stream.app.logs.k", b"1")
    await jetstream.publish("kalam.shared.app.notes.insert", b"1")
    async with guarded.client("svc") as svc:
        own = svc.client.jetstream()
        subscription = await own.pull_subscribe("", stream="KALAM-app-logs", durable="mine")
        (message,) = await subscription.fetch(1, timeout=5)
        await message.ack_sync()
        assert message.data == b"1"
        assert (await own.get_msg("KALAM-app-logs", 1, direct=True)).data == b"1"
        assert [subject for subject in MACHINERY if subject != "$JS.API.INFO" and await svc.may_say(subject)] == []
        for subject in (
            "$JS.API.STREAM.PURGE.KALAM-app-logs",
            "$JS.API.STREAM.DELETE.KALAM-app-logs",
            "$JS.API.STREAM.UPDATE.KALAM-app-logs",
            "$JS.API.STREAM.MSG.DELETE.KALAM-app-logs",
            "$JS.API.STREAM.SNAPSHOT.KALAM-app-logs",
            "kalam.stream.app.logs.k",
        ):
            assert not await svc.may_say(subject), subject


async def test_what_the_broker_tells_of_a_message_goes_nowhere_that_its_sender_may_not_publish(
    guarded: Guarded,
) -> None:
    everything = await guarded.kalam.client.subscribe(">")
    await guarded.kalam.client.flush()
    async with guarded.client("ben") as ben:
        for destination in ("kalam.shared.app.notes.insert", "kalam.api.ada.sql", "_INBOX.ada.1", "kalam.event.x"):
            for only in ("true", "false"):
                headers = {"Nats-Trace-Dest": destination, "Nats-Trace-Only": only}
                await ben.client.publish("kalam.api.ben.sql", b"{}", headers=headers)
        await ben.settle()
        assert len(ben.errors) == 8
    await guarded.kalam.client.flush()
    assert everything.pending_msgs == 0
