"""Logins: one answer for all that is wrong, one hash for many who come at once, and an end that counts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from login_book import Clock, fill_up, open_database
from msgspec.structs import replace

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.login import Login
from kalam.access.logins import Logins
from kalam.access.model import Narrowed, Token, User
from kalam.access.passwords import Passwords
from kalam.access.secrets import Made, make_secret
from kalam.access.sessions import IDLE_US, Sessions
from kalam.errors import KalamError, NotFound, TooBusy, Unauthenticated
from kalam.storage.log.database import Database

PASSWORD = "correct horse"
HERE = "10.0.0.1"


class CountedPasswords(Passwords):
    """Passwords that count how often one is verified, and of whom nobody is told."""

    verified = 0

    async def verify(self, encoded: str | None, password: str) -> bool:
        self.verified += 1
        return await super().verify(encoded, password)


class World:
    """A book with users, and logins into it."""

    def __init__(self, database: Database, clock: Clock, passwords: Passwords) -> None:
        self.database, self.clock = database, clock
        self.passwords = CountedPasswords(passwords._hasher)  # noqa: SLF001 - as cheap as the others
        self.book = Book(database)
        self.book.load()
        self.audit = Audit(database, clock.now_us)
        self.sessions = Sessions(database, clock.now_us)
        self.sessions.load()
        self.logins = Logins(
            self.book, self.sessions, self.audit, passwords=self.passwords, clock=clock.seconds, now=clock.now
        )

    async def user(self, name: str, password: str | None = PASSWORD, **fields: Any) -> User:
        encoded = None if password is None else await self.passwords.hash(password)
        user = User(name=name, password_hash=encoded, password_us=self.clock.now_us(), created_at=self.clock.now())
        user = replace(user, **fields)
        await self.book.put_user(user)
        return user

    async def token(self, user: str, name: str = "ci", **fields: Any) -> Made:
        made = make_secret()
        token = Token(id=made.id, name=name, user=user, hash=made.hash, created_at=self.clock.now())
        await self.book.put_token(replace(token, **fields))
        return made

    async def log_in(self, user: str | None, secret: str, address: str = HERE) -> Login:
        return await self.logins.log_in(user, secret, door="http", address=address)

    async def refused(self, user: str | None, secret: str, address: str = HERE) -> KalamError:
        with pytest.raises((Unauthenticated, TooBusy)) as caught:
            await self.log_in(user, secret, address)
        return caught.value

    async def entries(self) -> list[tuple[Any, ...]]:
        await self.audit.drain()
        with self.database.reading() as conn:
            return conn.execute("SELECT user, action, object, outcome, detail FROM audit ORDER BY entry_id").fetchall()


@pytest.fixture
def world(database: Database, clock: Clock, passwords: Passwords) -> World:
    return World(database, clock, passwords)


# Passwords.


async def test_a_password_lets_its_user_in(world: World) -> None:
    user = await world.user("ada")
    assert await world.log_in("ada", PASSWORD) == Login("ada", "password", "", None, user.password_us)


async def test_an_end_of_the_user_is_the_end_of_the_login(world: World, clock: Clock) -> None:
    until = clock.now() + timedelta(minutes=5)
    await world.user("ada", valid_until=until)
    login = await world.log_in("ada", PASSWORD)
    assert login.ends_at == until
    clock.s += 299
    assert world.logins.stands(login)
    clock.s += 1
    assert not world.logins.stands(login)
    assert isinstance(await world.refused("ada", PASSWORD), Unauthenticated)


WRONG: list[tuple[str | None, str]] = [
    ("ada", "wrong password"),
    ("ada", PASSWORD + "\0"),
    ("ada", PASSWORD.upper()),
    ("ada", ""),
    ("ada", "x" * 100_000),
    ("Ada", PASSWORD),
    ("ada ", PASSWORD),
    ("nobody", PASSWORD),
    ("", PASSWORD),
    ("x" * 100_000, PASSWORD),
    ("a.b>*", PASSWORD),
    ("ada\0", PASSWORD),
    ("lone\ud800", "lone\ud800one"),
    (None, PASSWORD),
    (None, ""),
    ("tokens-only", PASSWORD),
    ("locked", PASSWORD),
    ("expired", PASSWORD),
    ("ada", "kalam_0123456789ab_" + "A" * 43),
    (None, "kalam_0123456789ab_" + "A" * 43),
]


async def test_whatever_is_wrong_the_answer_is_the_same_and_shows_nothing(world: World, clock: Clock) -> None:
    await world.user("ada")
    await world.user("tokens-only", None)
    await world.user("locked", locked=True)
    await world.user("expired", valid_until=clock.now())
    answers = []
    for number, (user, secret) in enumerate(WRONG):
        error = await world.refused(user, secret, f"10.0.1.{number}")
        answers.append(error.problem())
        clock.s += 1_000
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["code"] == "unauthenticated"


async def test_the_audit_says_why_and_names_nobody_who_is_not_there(world: World, clock: Clock) -> None:
    await world.user("ada")
    await world.user("locked", locked=True)
    await world.user("expired", valid_until=clock.now())
    token = await world.token("ada", expires_at=clock.now())
    for user, secret in (
        ("ada", PASSWORD),
        ("ada", "wrong password"),
        ("my secret passphrase", PASSWORD),
        ("locked", PASSWORD),
        ("expired", PASSWORD),
        (None, token.text),
        (None, make_secret().text),
    ):
        await asyncio.gather(world.log_in(user, secret), return_exceptions=True)
    refused = "unauthenticated"
    assert await world.entries() == [
        ("ada", "login", "password", "ok", ""),
        ("ada", "login", "", refused, "wrong password"),
        (None, "login", "", refused, "unknown user"),
        ("locked", "login", "", refused, "the user is locked"),
        ("expired", "login", "", refused, "the user's time is over"),
        ("ada", "login", "", refused, f"token {token.id} has expired"),
        (None, "login", "", refused, "unknown token"),
    ]


async def test_for_nobody_a_hash_is_computed_too(world: World) -> None:
    await world.user("tokens-only", None)
    for count, user in enumerate(("nobody", "tokens-only"), 1):
        await world.refused(user, PASSWORD)
        assert world.passwords.verified == count


# Many at once, and again.


async def test_many_with_the_same_secret_share_one_hash(world: World) -> None:
    await world.user("ada")
    logins = await asyncio.gather(*(world.log_in("ada", PASSWORD, f"10.0.{n // 250}.{n % 250}") for n in range(500)))
    assert {login.user for login in logins} == {"ada"}
    assert world.passwords.verified == 1


async def test_many_with_the_same_wrong_secret_are_one_failure(world: World) -> None:
    await world.user("ada")
    tries = [world.log_in("ada", "wrong password") for _ in range(100)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unauthenticated}
    assert world.passwords.verified == 1
    assert (await world.log_in("ada", PASSWORD)).user == "ada"


async def test_one_who_leaves_takes_the_hash_from_nobody(world: World) -> None:
    await world.user("ada")
    first = asyncio.create_task(world.log_in("ada", PASSWORD))
    second = asyncio.create_task(world.log_in("ada", PASSWORD))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).user == "ada"
    assert first.cancelled()
    assert world.passwords.verified == 1


async def test_guesses_that_come_at_once_are_held_up_after_the_fifth(world: World) -> None:
    await world.user("ada")
    tries = [world.log_in("ada", f"wrong password {number}") for number in range(100)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unauthenticated, TooBusy}
    assert world.passwords.verified <= 6  # two threads, or more, had one each when the fifth failed


async def test_a_secret_that_was_verified_needs_no_hash_for_a_minute(world: World, clock: Clock) -> None:
    await world.user("ada")
    assert world.logins.known_nowait("ada", PASSWORD) is None
    login = await world.log_in("ada", PASSWORD)
    for _ in range(10):
        assert world.logins.known_nowait("ada", PASSWORD) == login
        assert await world.log_in("ada", PASSWORD) == login
        clock.s += 59  # each use counts
    assert world.passwords.verified == 1
    clock.s += 1
    assert world.logins.known_nowait("ada", PASSWORD) is None
    await world.log_in("ada", PASSWORD)
    assert world.passwords.verified == 2


async def test_what_is_known_is_known_of_one_user_and_secret_alone(world: World) -> None:
    await world.user("ada")
    await world.user("ben", "another password")
    token = await world.token("ada")
    await world.log_in("ada", PASSWORD)
    await world.log_in(None, token.text)
    for user, secret in (
        ("ada", PASSWORD + " "),
        ("ben", PASSWORD),
        (None, PASSWORD),
        ("", PASSWORD),
        ("ben", token.text),
    ):
        assert world.logins.known_nowait(user, secret) is None, user
    assert world.logins.known_nowait(None, token.text) is not None


async def test_from_another_address_a_login_is_told_once_more(world: World) -> None:
    await world.user("ada")
    await world.log_in("ada", PASSWORD)
    assert world.logins.known_nowait("ada", PASSWORD, HERE) is not None
    assert world.logins.known_nowait("ada", PASSWORD, "10.0.0.2") is None
    await world.log_in("ada", PASSWORD, "10.0.0.2")
    for address in (HERE, "10.0.0.2"):
        assert world.logins.known_nowait("ada", PASSWORD, address) is not None
    assert world.passwords.verified == 1
    assert len(await world.entries()) == 2


# Who fails is held up.


async def test_from_the_fifth_failure_on_it_takes_longer_and_longer(world: World, clock: Clock) -> None:
    await world.user("ada")
    for _ in range(4):
        assert isinstance(await world.refused("ada", "wrong password"), Unauthenticated)
    waits = []
    for _ in range(8):
        error = await world.refused("ada", "wrong password")
        assert isinstance(error, TooBusy)
        waits.append(error.fields["retry_after"])
        assert (await world.refused("ada", PASSWORD)).fields["retry_after"] == waits[-1]  # the right one waits as well
        clock.s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert world.passwords.verified == 12
    assert (await world.log_in("ada", PASSWORD)).user == "ada"
    assert isinstance(await world.refused("ada", "wrong password"), Unauthenticated)


async def test_who_is_known_is_held_up_by_nobodys_failures(world: World) -> None:
    await world.user("ada")
    login = await world.log_in("ada", PASSWORD)
    for number in range(60):
        await world.refused("ada", f"wrong password {number}")
    assert await world.log_in("ada", PASSWORD) == login
    assert world.logins.known_nowait("ada", PASSWORD) == login


async def test_others_at_the_address_are_held_up_from_the_fiftieth_failure_on(world: World) -> None:
    await world.user("ada")
    for number in range(49):
        await world.refused(f"nobody-{number}", PASSWORD)
    await world.log_in("ada", PASSWORD)
    await world.user("ben")
    await world.refused("nobody", PASSWORD)
    assert isinstance(await world.refused("ben", PASSWORD), TooBusy)
    assert (await world.log_in("ben", PASSWORD, "10.0.0.2")).user == "ben"


async def test_who_is_not_there_is_held_up_like_who_is(world: World) -> None:
    await world.user("ada")
    answers = {}
    for user in ("ada", "nobody"):
        answers[user] = [(await world.refused(user, "wrong password")).problem() for _ in range(7)]
    assert answers["ada"] == answers["nobody"]


# Tokens.


async def test_a_token_logs_in_by_itself_and_as_its_users_password(world: World, clock: Clock) -> None:
    await world.user("ada", None)
    made = await world.token("ada")
    for user in (None, "ada"):
        assert await world.log_in(user, made.text) == Login("ada", "token", made.id)
    assert world.passwords.verified == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text[:-1],
        lambda text: text + " ",
        lambda text: text.upper(),
    ],
)
async def test_a_token_that_is_not_whole_is_none(world: World, change: Callable[[str], str]) -> None:
    await world.user("ada")
    made = await world.token("ada")
    assert isinstance(await world.refused(None, change(made.text)), Unauthenticated)
    assert isinstance(await world.refused("ada", change(made.text)), Unauthenticated)


async def test_a_token_is_of_its_user_alone(world: World) -> None:
    await world.user("ada")
    await world.user("ben")
    made = await world.token("ada")
    assert isinstance(await world.refused("ben", made.text), Unauthenticated)


async def test_a_token_and_its_login_end_when_it_expires(world: World, clock: Clock) -> None:
    await world.user("ada", valid_until=clock.now() + timedelta(days=2))
    made = await world.token("ada", expires_at=clock.now() + timedelta(days=1))
    login = await world.log_in(None, made.text)
    assert login.ends_at == clock.now() + timedelta(days=1)
    clock.s += 86_399
    assert world.logins.stands(login)
    clock.s += 1
    assert not world.logins.stands(login)
    assert world.logins.known_nowait(None, made.text) is None
    await world.refused(None, made.text)


# What ends a login.


async def test_a_new_password_ends_the_logins_and_sessions_of_the_old_one_and_no_token(
    world: World, clock: Clock
) -> None:
    user = await world.user("ada")
    made = await world.token("ada")
    by_password, by_token = await world.log_in("ada", PASSWORD), await world.log_in(None, made.text)
    session, of_token = [await world.logins.open_session(each, HERE) for each in (by_password, by_token)]
    clock.s += 1
    changed = replace(user, password_hash=await world.passwords.hash("another password"), password_us=clock.now_us())
    await world.book.put_user(changed)
    assert not world.logins.stands(by_password)
    assert world.logins.stands(by_token)
    assert world.logins.session(session) is None
    assert world.logins.session(of_token) is not None
    await world.book.narrowed(Narrowed(users=frozenset({"ada"}), logins="password"))
    assert [each.token for each in world.logins.sessions()] == [made.id]
    assert isinstance(await world.refused("ada", PASSWORD), Unauthenticated)
    assert (await world.log_in("ada", "another password")).user == "ada"


async def test_a_lock_ends_everything_and_unlocking_revives_the_tokens(world: World) -> None:
    user = await world.user("ada")
    made = await world.token("ada")
    logins = [await world.log_in("ada", PASSWORD), await world.log_in(None, made.text)]
    secrets = [await world.logins.open_session(login, HERE) for login in logins]
    await world.book.put_user(replace(user, locked=True))
    assert not any(world.logins.stands(login) for login in logins)
    assert [world.logins.session(secret) for secret in secrets] == [None, None]
    assert world.logins.known_nowait("ada", PASSWORD) is None
    await world.book.narrowed(Narrowed(users=frozenset({"ada"}), logins="all"))
    await world.book.put_user(user)
    assert world.logins.known_nowait("ada", PASSWORD) is None
    assert [world.logins.session(secret) for secret in secrets] == [None, None]
    assert (await world.log_in(None, made.text)).user == "ada"


async def test_a_dropped_user_is_nobody_and_a_new_one_of_the_name_is_another(world: World, clock: Clock) -> None:
    await world.user("ada")
    made = await world.token("ada")
    login, by_token = await world.log_in("ada", PASSWORD), await world.log_in(None, made.text)
    secret = await world.logins.open_session(login, HERE)
    await world.book.drop("ada")
    await world.refused("ada", PASSWORD)
    clock.s += 1
    await world.user("ada")
    assert not world.logins.stands(login)
    assert not world.logins.stands(by_token)
    assert world.logins.session(secret) is None
    await world.refused(None, made.text)


async def test_a_dropped_token_ends_its_logins_and_sessions_alone(world: World) -> None:
    await world.user("ada")
    first, second = await world.token("ada", "first"), await world.token("ada", "second")
    logins = [await world.log_in(None, made.text) for made in (first, second)]
    secrets = [await world.logins.open_session(login, HERE) for login in logins]
    await world.book.drop_token(world.book.tokens[first.id])
    await world.book.narrowed(Narrowed(users=frozenset({"ada"}), logins=first.id))
    assert [world.logins.stands(login) for login in logins] == [False, True]
    assert [world.logins.session(secret) is None for secret in secrets] == [True, False]
    assert len(list(world.sessions)) == 1


async def test_a_password_that_changes_while_it_is_verified_lets_nobody_in(world: World, clock: Clock) -> None:
    user = await world.user("ada")
    other = await world.passwords.hash("another password")
    clock.s += 1
    login = asyncio.create_task(world.log_in("ada", PASSWORD))
    await asyncio.sleep(0)
    world.book.users["ada"] = replace(user, password_hash=other, password_us=clock.now_us())
    with pytest.raises(Unauthenticated):
        await login


# Sessions.


async def test_a_session_is_a_login_that_lasts_while_it_is_used(world: World, clock: Clock) -> None:
    user = await world.user("ada", valid_until=clock.now() + timedelta(days=9))
    secret = await world.logins.open_session(await world.log_in("ada", PASSWORD), HERE)
    for _ in range(3):
        clock.s += IDLE_US / 1e6 - 1
        login = world.logins.session(secret)
        assert login is not None
        assert (login.user, login.how, login.ends_at) == ("ada", "session", user.valid_until)
        assert world.logins.stands(login)
    clock.s += IDLE_US / 1e6
    assert not world.logins.stands(login)
    assert world.logins.session(secret) is None


async def test_a_session_that_is_ended_is_told_of_and_ends_what_is_open_by_it(world: World) -> None:
    await world.user("ada")
    secret = await world.logins.open_session(await world.log_in("ada", PASSWORD), HERE)
    login = world.logins.session(secret)
    assert login is not None
    told = []

    async def listen(narrowed: Narrowed) -> None:
        told.append((narrowed.users, narrowed.logins, narrowed.reason))

    world.book.on_narrowed(listen)
    await world.logins.end_session(login.credential, door="http", address=HERE)
    assert told == [(frozenset({"ada"}), login.credential, "logout")]
    assert not world.logins.stands(login)
    assert {entry[1:4] for entry in await world.entries()} == {
        ("login", "password", "ok"),
        ("open session", login.credential, "ok"),
        ("end session", login.credential, "ok"),
    }
    with pytest.raises(NotFound):
        await world.logins.end_session(login.credential)


@pytest.mark.parametrize("secret", ["", "session", "session_0123456789ab_" + "A" * 43, "x" * 100_000, "é\0\ud800"])
async def test_what_is_no_session_is_none(world: World, secret: str) -> None:
    assert world.logins.session(secret) is None


async def test_with_a_full_disk_logins_and_sessions_go_on(world: World) -> None:
    await world.user("ada")
    await fill_up(world.database)
    for number in range(50):
        login = await world.log_in("ada", PASSWORD, f"10.0.0.{number}")
        secret = await world.logins.open_session(login, HERE)
        assert world.logins.session(secret) is not None


async def test_a_start_ends_what_was_cut_off_while_it_ended(tmp_path: Path, clock: Clock, passwords: Passwords) -> None:
    database = open_database(tmp_path)
    world = World(database, clock, passwords)
    user = await world.user("ada")
    await world.user("ben")
    for name in ("ada", "ben"):
        await world.logins.open_session(await world.log_in(name, PASSWORD), HERE)
    await world.book.put_user(replace(user, locked=True))  # and the server dies here
    database.close()
    database = open_database(tmp_path)
    world = World(database, clock, passwords)
    await world.logins.tidy()
    await world.book.put_user(user)
    assert [session.user for session in world.logins.sessions()] == ["ben"]
    database.close()
