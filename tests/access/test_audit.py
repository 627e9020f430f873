"""The audit is written with what it tells of, waits for a full disk, and loses nothing that fits into its bound."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from login_book import Clock, fill_up, make_room, wait_until
from msgspec.structs import replace

from kalam.access import audit as audit_module
from kalam.access.audit import Audit
from kalam.access.entry import Entry
from kalam.errors import AlreadyExists, StorageFull
from kalam.storage.log.database import Database, now_us
from kalam.storage.work.housekeeping import Housekeeping
from kalam.tasks import running

CREATE = Entry(at_us=0, user="ada", door="http", address="10.0.0.1", action="CREATE USER", object="ben")


def rows(database: Database, columns: str = "user, action, object, outcome, detail") -> list[tuple[Any, ...]]:
    with database.reading() as conn:
        return conn.execute(f"SELECT {columns} FROM audit ORDER BY entry_id").fetchall()


def note(conn: sqlite3.Connection) -> None:
    conn.execute("INSERT INTO meta VALUES ('noted', '')")


async def noted(database: Database) -> bool:
    return bool(await database.write(lambda conn: conn.execute("SELECT 1 FROM meta WHERE name = 'noted'").fetchone()))


@asynccontextmanager
async def written(audit: Audit) -> AsyncIterator[None]:
    async with running(audit.run(), "audit"):
        yield
    await audit.drain()


async def test_a_change_and_what_tells_of_it_are_one_transaction(database: Database, clock: Clock) -> None:
    audit = Audit(database, clock.now_us)
    before = database.commits
    with audit.telling(CREATE):
        await database.write(note)
    assert database.commits == before + 1
    columns = "at_us, user, acting_for, door, address, action, object, outcome, detail"
    assert rows(database, columns) == [
        (clock.now_us(), "ada", None, "http", "10.0.0.1", "CREATE USER", "ben", "ok", "")
    ]


async def test_only_the_first_transaction_of_a_change_tells_of_it(database: Database) -> None:
    audit = Audit(database)
    with audit.telling(CREATE):
        await database.write(note)
        await database.write(lambda conn: conn.execute("DELETE FROM meta WHERE name = 'noted'"))
    assert len(rows(database)) == 1
    assert audit.waiting == 0


async def test_what_only_looks_tells_of_nothing(database: Database) -> None:
    audit = Audit(database)

    async def look_and_refuse() -> None:
        with audit.telling(CREATE):
            assert not await noted(database)
            raise AlreadyExists("it is there")

    with pytest.raises(AlreadyExists):
        await look_and_refuse()
    await audit.drain()
    assert [row[3] for row in rows(database)] == ["already_exists"]
    before = database.commits
    with audit.telling(CREATE):
        assert not await noted(database)
        await database.write(note)
        assert [row[3] for row in rows(database)] == ["already_exists", "ok"]
    assert database.commits == before + 2


async def test_a_second_try_tells_of_what_the_first_did_not(database: Database) -> None:
    audit = Audit(database)

    def refuse(conn: sqlite3.Connection) -> None:
        raise AlreadyExists("taken meanwhile")

    with audit.telling(CREATE):
        with pytest.raises(AlreadyExists):
            await database.write(refuse)
        await database.write(note)
        assert [row[3] for row in rows(database)] == ["ok"]
    await audit.drain()
    assert len(rows(database)) == 1


async def test_a_change_that_is_refused_is_told_with_its_code_and_without_a_word_of_it(database: Database) -> None:
    audit = Audit(database)

    def refuse(conn: sqlite3.Connection) -> None:
        note(conn)
        raise AlreadyExists("user hunter2-hunter2 exists")

    with pytest.raises(AlreadyExists), audit.telling(CREATE):
        await database.write(refuse)
    assert not await noted(database)
    await audit.drain()
    assert rows(database) == [("ada", "CREATE USER", "ben", "already_exists", "")]


async def test_a_change_whose_transaction_fails_is_not_told_as_done(database: Database) -> None:
    audit = Audit(database)

    def fail(conn: sqlite3.Connection) -> None:
        note(conn)
        conn.execute("INSERT INTO no_such_table VALUES (1)")

    with pytest.raises(StorageFull), audit.telling(CREATE):
        await database.write(fail)
    await audit.drain()
    assert rows(database) == [("ada", "CREATE USER", "ben", "storage_full", "")]


async def test_what_cannot_be_told_is_not_done(database: Database) -> None:
    audit = Audit(database)
    await database.write(lambda conn: conn.execute("ALTER TABLE audit RENAME TO elsewhere"))
    with pytest.raises(StorageFull), audit.telling(CREATE):
        await database.write(note)
    assert not await noted(database)


async def test_one_who_is_cut_off_is_told_as_cancelled(database: Database) -> None:
    audit = Audit(database)
    with pytest.raises(asyncio.CancelledError), audit.telling(CREATE):
        raise asyncio.CancelledError
    await audit.drain()
    assert rows(database) == [("ada", "CREATE USER", "ben", "cancelled", "")]


async def test_a_change_that_writes_nothing_is_told_all_the_same(database: Database) -> None:
    audit = Audit(database)
    with audit.telling(CREATE):
        pass
    await audit.drain()
    assert rows(database) == [("ada", "CREATE USER", "ben", "ok", "")]


async def test_within_a_change_the_outer_one_tells(database: Database) -> None:
    audit = Audit(database)
    with audit.telling(CREATE), audit.telling(Entry(at_us=0, user="ben", action="end session")):
        await database.write(note)
    assert rows(database) == [("ada", "CREATE USER", "ben", "ok", "")]


async def test_a_task_that_outlives_a_change_tells_of_its_own(database: Database) -> None:
    audit = Audit(database)
    told = asyncio.Event()

    async def later() -> None:
        await told.wait()
        with audit.telling(Entry(at_us=0, user="ben", action="end session")):
            await database.write(note)

    with audit.telling(CREATE):
        task = asyncio.create_task(later())
    told.set()
    await task
    await audit.drain()
    assert sorted(row[1] for row in rows(database)) == ["CREATE USER", "end session"]


async def test_what_is_old_goes(database: Database) -> None:
    audit = Audit(database)
    day_us = 86_400_000_000
    for days in (91, 89, 0):
        audit.add(replace(CREATE, at_us=now_us() - days * day_us, object=f"{days} days"))
    await audit.drain()
    nothing = cast("Any", None)  # neither of them is asked
    housekeeping = Housekeeping(database, nothing, nothing, job_history_s=60, audit_s=90 * 86_400)
    await database.write(housekeeping._forget_old)  # noqa: SLF001 - what the loop does now and then
    assert [row[2] for row in rows(database)] == ["89 days", "0 days"]


async def test_changes_side_by_side_tell_of_themselves(database: Database) -> None:
    audit = Audit(database)

    async def change(number: int) -> None:
        with audit.telling(Entry(at_us=0, user="ada", action="CREATE USER", object=f"u{number}")):
            await asyncio.sleep(0)
            await database.write(
                lambda conn: conn.execute("INSERT INTO meta VALUES (?, '')", (f"n{number}",)),
            )

    await asyncio.gather(*(change(number) for number in range(50)))
    assert sorted(row[2] for row in rows(database)) == sorted(f"u{number}" for number in range(50))


async def test_what_is_noted_is_written_by_itself(database: Database) -> None:
    audit = Audit(database)
    async with written(audit):
        audit.note("ada", "login", "password", door="nats", address="10.0.0.1")
        audit.note(None, "login", outcome="unauthenticated", detail="unknown user")
        await wait_until(lambda: not audit.waiting)
        assert rows(database) == [
            ("ada", "login", "password", "ok", ""),
            (None, "login", "", "unauthenticated", "unknown user"),
        ]


async def test_refusals_and_logins_that_repeat_are_counted_and_other_things_never(database: Database) -> None:
    audit = Audit(database)
    for _ in range(100):
        audit.note("ada", "login", outcome="unauthenticated")
        audit.note("ada", "login", "password")
        audit.note("ada", "KILL QUERY", "q1")
    await audit.drain()
    found = rows(database)
    assert found.count(("ada", "KILL QUERY", "q1", "ok", "")) == 100
    assert found.count(("ada", "login", "", "unauthenticated", "")) == 9
    assert found.count(("ada", "login", "", "unauthenticated", "91 times within a minute")) == 1
    assert found.count(("ada", "login", "password", "ok", "91 times within a minute")) == 1
    assert len(found) == 120


async def test_a_full_disk_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "TICK_S", 0.01)
    audit = Audit(database)
    await fill_up(database)
    database.failure = None
    async with written(audit):
        for number in range(3_000):
            audit.note("ada", "KILL QUERY", f"q{number}")
        await wait_until(lambda: database.failure)
        assert audit.waiting
        await make_room(database)
        await wait_until(lambda: not audit.waiting)
    assert [row[2] for row in rows(database)] == [f"q{number}" for number in range(3_000)]


async def test_what_does_not_fit_is_counted(database: Database) -> None:
    audit = Audit(database)
    for number in range(audit_module.WAITING_MAX + 7):
        audit.note("ada", "KILL QUERY", f"q{number}")
    await audit.drain()
    found = rows(database)
    assert len(found) == audit_module.WAITING_MAX + 1
    assert found[-1] == (None, "audit", "", "lost", "7 more could not be kept")
