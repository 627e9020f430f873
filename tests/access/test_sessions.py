"""Sessions: found by their secret, idle for twelve hours at most, and there after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from login_book import Clock, fill_up, make_room, open_database

from kalam.access.login import Login
from kalam.access.secrets import SESSION, Made, make_secret
from kalam.access.sessions import IDLE_US, PER_USER_MAX, Session, Sessions
from kalam.storage.log.database import Database

ADA = Login("ada", "password", password_us=7)


async def opened(sessions: Sessions, login: Login = ADA) -> Made:
    made = make_secret(SESSION)
    await sessions.open(made, login, "10.0.0.1")
    return made


def everyone(_: Session) -> bool:
    return True


@pytest.fixture
def sessions(database: Database, clock: Clock) -> Sessions:
    return Sessions(database, clock.now_us)


async def test_a_session_is_found_by_its_whole_secret(sessions: Sessions) -> None:
    made = await opened(sessions)
    found = sessions.find(made.text)
    assert found is not None
    assert (found.id, found.user, found.address, found.token, found.password_us) == (made.id, "ada", "10.0.0.1", "", 7)
    for other in (made.id, made.text[:-1], make_secret(SESSION).text, "", made.text.replace("session", "kalam")):
        assert sessions.find(other) is None


async def test_the_secret_is_nowhere_in_the_database(database: Database, sessions: Sessions) -> None:
    made = await opened(sessions)
    with database.reading() as conn:
        rows = conn.execute("SELECT * FROM sessions").fetchall()
    assert len(rows) == 1
    assert made.text[-43:] not in str(rows)
    assert made.hash in rows[0]


async def test_a_session_ends_twelve_hours_after_its_last_use(sessions: Sessions, clock: Clock) -> None:
    made = await opened(sessions)
    clock.s += IDLE_US / 1e6 - 1
    found = sessions.find(made.text)
    assert found is not None
    sessions.use(found)
    clock.s += IDLE_US / 1e6 - 1
    assert sessions.find(made.text) is not None
    clock.s += 1
    assert sessions.find(made.text) is None
    assert list(sessions) == []


async def test_a_restart_logs_nobody_out_and_revives_nobody(tmp_path: Path, clock: Clock) -> None:
    database = open_database(tmp_path)
    sessions = Sessions(database, clock.now_us)
    stays, ends = await opened(sessions), await opened(sessions)
    await sessions.end(lambda each: each.id == ends.id)
    database.close()

    database = open_database(tmp_path)
    sessions = Sessions(database, clock.now_us)
    sessions.load()
    assert [each.id for each in sessions] == [stays.id]
    assert sessions.find(stays.text) is not None
    assert sessions.find(ends.text) is None
    database.close()


async def test_the_time_of_the_last_use_is_kept(database: Database, sessions: Sessions, clock: Clock) -> None:
    made = await opened(sessions)
    found = sessions.find(made.text)
    assert found is not None
    clock.s += 1_000
    sessions.use(found)
    await sessions.save()
    again = Sessions(database, clock.now_us)
    again.load()
    assert [each.used_us for each in again] == [clock.now_us()]


async def test_of_too_many_the_one_that_was_not_used_for_longest_ends(sessions: Sessions, clock: Clock) -> None:
    made = []
    for _ in range(PER_USER_MAX):
        made.append(await opened(sessions))
        clock.s += 1
    first = sessions.find(made[0].text)
    assert first is not None
    sessions.use(first)
    clock.s += 1
    await opened(sessions, Login("ben", "password"))
    await opened(sessions)
    assert sessions.find(made[0].text) is not None
    assert sessions.find(made[1].text) is None
    assert sessions.find(made[2].text) is not None
    assert len(list(sessions)) == PER_USER_MAX + 1


async def test_a_full_disk_ends_and_begins_sessions_in_memory_and_catches_up(
    database: Database, sessions: Sessions, clock: Clock
) -> None:
    before = await opened(sessions)
    await fill_up(database)
    meanwhile = [await opened(sessions) for _ in range(100)]
    await sessions.end(lambda each: each.id == before.id)
    assert sessions.find(before.text) is None
    assert sessions.find(meanwhile[-1].text) is not None
    await make_room(database)
    await sessions.save()
    again = Sessions(database, clock.now_us)
    again.load()
    assert {each.id for each in again} == {made.id for made in meanwhile}


async def test_ending_tells_which(sessions: Sessions) -> None:
    made = {(await opened(sessions)).id for _ in range(3)}
    assert {session.id for session in await sessions.end(everyone)} == made
    assert await sessions.end(everyone) == []
