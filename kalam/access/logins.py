"""Logins: who somebody is, by a password, a token or a session; the same for every door.

Law: nobody learns from an answer, or from the time that it takes, whether there is a user of that name, only whether
the whole was right. Many who come with the same secret at the same time share one verification, and who was verified
within the last minute needs none and is held up by nothing. Whether a login still holds is asked of the book.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from kalam.access.audit import Audit
from kalam.access.book import Book
from kalam.access.entry import Entry
from kalam.access.login import Login
from kalam.access.model import Ends, Narrowed, Token, User
from kalam.access.passwords import LENGTH_MIN, Passwords
from kalam.access.remembered import Remembered
from kalam.access.scram import ITERATIONS, Proof, Verifier, derived_salt
from kalam.access.secrets import SESSION, id_of, is_hash_of, make_secret
from kalam.access.sessions import Session, Sessions
from kalam.access.throttle import Throttle, network
from kalam.access.turns import Turns
from kalam.errors import KalamError, NotFound, TooBusy, Unauthenticated
from kalam.names import USER_PATTERN
from kalam.threads import Purpose

NOBODY: Final = ""
"""Under which the book has the secret that salts of unknown names are derived from."""
WAITING_MAX: Final = 600
"""Passwords that wait for their verification, some ten seconds of work; a door's client waits no longer."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a login is refused, for the audit alone. ``user`` is None unless there is one of that name.

    ``wait_s`` is how long the next one is held up, in seconds.
    """

    reason: str
    user: str | None = None
    wait_s: float = 0.0

    def error(self) -> KalamError:
        """What is told, which is the same for every reason."""
        if not self.wait_s:
            return Unauthenticated("the login was refused: name, password or token is wrong, or not valid any more")
        wait = math.ceil(self.wait_s)
        return TooBusy(f"too many logins have failed; try again in {wait} s", retry_after=wait)


class Logins:
    """Lets users in. ``clock`` gives seconds, ``now`` the time of day."""

    def __init__(
        self,
        book: Book,
        sessions: Sessions,
        audit: Audit,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._book, self._sessions, self._audit = book, sessions, audit
        self._passwords = passwords or Passwords()
        self._clock, self._now = clock, now
        self._remembered = Remembered(clock)
        self._throttle = Throttle()
        self._turns = Turns(Purpose.PASSWORDS.threads_max, WAITING_MAX)
        self._judging: dict[bytes, asyncio.Task[Login | Refusal]] = {}
        book.on_narrowed(self._end)

    # Passwords and tokens.

    async def log_in(self, user: str | None, secret: str, *, door: str, address: str) -> Login:
        """Who has this secret: a password or a token of the user, or with None whoever's token it is.

        Raises Unauthenticated, and TooBusy with ``retry_after`` in seconds; both are the same for every reason.
        """
        digest = self._remembered.digest(user, secret)
        found: Login | Refusal | None = self._standing(self._remembered.find(digest))
        if found is None:
            found = await self._shared(digest, user, secret, address)
        if isinstance(found, Refusal):
            outcome = found.error()
            self._audit.note(found.user, "login", door=door, address=address, outcome=outcome.code, detail=found.reason)
            raise outcome
        self._remembered.put(digest, found, address)
        self._audit.note(found.user, "login", _credential(found), door=door, address=address)
        return found

    def scram_of(self, user: str) -> Verifier | None:
        """With which salt and how many iterations a user proves to know a secret, made up for a name of nobody.

        None where the user's password was set before verifiers were kept: only the password itself can be looked at.
        """
        known, kept = self._book.users.get(user), self._book.verifiers.get(user, {})
        if known is not None and known.password_hash is not None and "" not in kept:
            return None
        derived_from = self._book.verifiers[NOBODY][""].salt
        return next(iter(kept.values()), Verifier(derived_salt(derived_from, user), ITERATIONS, b"", b""))

    async def log_in_by_proof(self, user: str, proof: Proof, *, door: str, address: str) -> tuple[Login, Verifier]:
        """Who proves to know a secret of a user's, and which; raises as ``log_in`` does."""
        subject = _subject(user, None)
        kept: Verifier | None = None
        if wait := self._throttle.wait_s(self._clock(), subject, address):
            found: Login | Refusal = self._held_up(user, wait)
        else:
            judged, kept = self._by_proof(user, proof)
            found = self._counted(judged, subject, address)
        if isinstance(found, Refusal) or kept is None:
            refusal = found if isinstance(found, Refusal) else Refusal("wrong password", self._named(user))
            outcome, told = refusal.error(), refusal.reason
            self._audit.note(refusal.user, "login", door=door, address=address, outcome=outcome.code, detail=told)
            raise outcome
        self._audit.note(found.user, "login", _credential(found), door=door, address=address)
        return found, kept

    def _by_proof(self, name: str, proof: Proof) -> tuple[Login | Refusal, Verifier | None]:
        user = self._book.users.get(name)
        matched = [pair for pair in self._book.verifiers.get(name, {}).items() if proof.is_of(pair[1])]
        if user is None or not matched:
            return Refusal("unknown user" if user is None else "wrong password", self._named(name)), None
        credential, kept = matched[0]
        if not credential:
            return self._closed(user) or Login(name, "password", "", user.valid_until, user.password_us), kept
        return self._of_token(self._book.tokens[credential], user), kept

    def known_nowait(self, user: str | None, secret: str, address: str | None = None) -> Login | None:
        """The login of a secret that was verified within the last minute, and, if an address is given, from there.

        It costs a hash of a microsecond, and no entry in the audit. None says nothing: ``log_in`` finds out.
        """
        return self._standing(self._remembered.find(self._remembered.digest(user, secret), address))

    def stands(self, login: Login) -> bool:
        """Whether a login holds still: its user is there and open, and its password, token or session as well."""
        user, now = self._book.users.get(login.user), self._now()
        if user is None or not user.may_log_in(now):
            return False
        match login.how:
            case "password":
                return user.password_us == login.password_us
            case "token":
                return self._holds(login.credential, user, now)
            case "session":
                session = self._sessions.get(login.credential)
                return session is not None and session.user == user.name and self._holds_session(session, user, now)
            case "nkey":
                return True

    def _holds(self, token_id: str, user: User, now: datetime) -> bool:
        token = self._book.tokens.get(token_id)
        return token is not None and token.user == user.name and not _has_expired(token, now)

    def _holds_session(self, session: Session, user: User, now: datetime) -> bool:
        if session.token:
            return self._holds(session.token, user, now)
        return session.password_us == user.password_us

    def _standing(self, login: Login | None) -> Login | None:
        return login if login is not None and self.stands(login) else None

    async def _shared(self, digest: bytes, user: str | None, secret: str, address: str) -> Login | Refusal:
        judging = self._judging.get(digest)
        if judging is None:
            judging = asyncio.create_task(self._judge(user, secret, address), name="login")
            self._judging[digest] = judging
            judging.add_done_callback(lambda _: self._judging.pop(digest, None))
        return await asyncio.shield(judging)

    async def _judge(self, user: str | None, secret: str, address: str) -> Login | Refusal:
        token_id = id_of(secret)
        subject = _subject(user, token_id)
        if wait := self._throttle.wait_s(self._clock(), subject, address):
            return self._held_up(user, wait)
        if token_id is not None:
            found = self._by_token(user, secret, token_id)
        elif user is None or len(secret) < LENGTH_MIN:
            found = Refusal("no token, and no password", self._named(user))
        else:
            try:
                async with self._turns.turn(network(address)):
                    if wait := self._throttle.wait_s(self._clock(), subject, address):  # others have failed meanwhile
                        return self._held_up(user, wait)
                    found = await self._by_password(user, secret)
                    return self._counted(found, subject, address)
            except TooBusy as exc:
                return Refusal("too many logins at once", self._named(user), exc.fields["retry_after"])
        return self._counted(found, subject, address)

    def _counted(self, found: Login | Refusal, subject: str | None, address: str) -> Login | Refusal:
        if isinstance(found, Refusal):
            return replace(found, wait_s=self._throttle.failed(self._clock(), subject, address))
        if subject is not None:
            self._throttle.succeeded(subject)
        return found

    async def _by_password(self, name: str, secret: str) -> Login | Refusal:
        user = self._book.users.get(name)
        kept = None if user is None else user.password_hash
        right = await self._passwords.verify(kept, secret)
        if user is None:
            return Refusal("unknown user")
        user = self._book.users.get(name)  # as it is by now
        if not right or user is None or user.password_hash != kept:
            return Refusal("wrong password", self._named(name))
        closed = self._closed(user)
        return closed or Login(name, "password", "", user.valid_until, user.password_us)

    def _by_token(self, name: str | None, secret: str, token_id: str) -> Login | Refusal:
        token = self._book.tokens.get(token_id)
        if token is None or not is_hash_of(token.hash, secret):
            return Refusal("unknown token", self._named(name))
        user = self._book.users.get(token.user)
        if user is None or name not in (None, user.name):
            return Refusal(f"token {token_id} of another user", self._named(name))
        return self._of_token(token, user)

    def _of_token(self, token: Token, user: User) -> Login | Refusal:
        if _has_expired(token, self._now()):
            return Refusal(f"token {token.id} has expired", user.name)
        ends = min((end for end in (token.expires_at, user.valid_until) if end is not None), default=None)
        return self._closed(user) or Login(user.name, "token", token.id, ends)

    def _closed(self, user: User) -> Refusal | None:
        if user.may_log_in(self._now()):
            return None
        return Refusal("the user is locked" if user.locked else "the user's time is over", user.name)

    def _held_up(self, user: str | None, wait_s: float) -> Refusal:
        return Refusal("held up after failed logins", self._named(user), wait_s)

    def _named(self, user: str | None) -> str | None:
        """What the audit may tell of a name: what is no user's may be a password in the wrong place."""
        return user if user in self._book.users else None

    # Sessions.

    async def open_session(self, login: Login, address: str, *, door: str = "") -> str:
        """A new session of somebody who has logged in: the secret by which it is found again."""
        made = make_secret(SESSION)
        told = Entry(at_us=0, user=login.user, action="open session", object=made.id, door=door, address=address)
        with self._audit.telling(told):
            await self._sessions.open(made, login, address)
        return made.text

    def session(self, secret: str) -> Login | None:
        """Who has the secret of a session, which lasts for another twelve hours then; None where it has ended."""
        session = self._sessions.find(secret)
        if session is None or not self.stands(session.login):
            return None
        self._sessions.use(session)
        return self._login_of(session)

    async def end_session(self, session_id: str, *, door: str = "", address: str = "") -> None:
        """End a session, and what is open by it; raises NotFound. Whether somebody may is for the caller to ask."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound(f"there is no session {session_id[:40]!r}", hint="SHOW SESSIONS lists them")
        told = Entry(at_us=0, user=session.user, action="end session", object=session.id, door=door, address=address)
        with self._audit.telling(told):
            await self._sessions.end(lambda each: each.id == session_id)
        await self._book.narrowed(
            Narrowed(users=frozenset((session.user,)), tables=frozenset(), logins=session_id, reason="logout")
        )

    def sessions(self) -> Iterator[Session]:
        """The sessions that stand, oldest first."""
        return (session for session in self._sessions if self.stands(session.login))

    def session_rows(self) -> list[tuple[Any, ...]]:
        """The rows of ``system.sessions``, oldest first."""
        return [
            (each.id, each.user, each.token or None, each.address, each.created_us, each.used_us, each.ends_us)
            for each in self.sessions()
        ]

    def _login_of(self, session: Session) -> Login:
        user, token = self._book.users[session.user], self._book.tokens.get(session.token)
        ends = [user.valid_until, None if token is None else token.expires_at]
        return replace(session.login, ends_at=min((end for end in ends if end is not None), default=None))

    # What ends.

    async def tidy(self) -> None:
        """End the sessions that do not stand any more, at the start: what ended them may have been cut off."""
        await self._sessions.end(lambda session: not self.stands(session.login))

    async def _end(self, narrowed: Narrowed) -> None:
        """End the sessions of whom lost their login, and remember it no longer."""
        logins = narrowed.logins
        if logins == Ends.NONE:
            return

        def ends(user: str, how: str, credential: str) -> bool:
            if narrowed.users is not None and user not in narrowed.users:
                return False
            return logins == Ends.ALL or (how == Ends.PASSWORD if logins == Ends.PASSWORD else credential == logins)

        self._remembered.forget(lambda login: ends(login.user, login.how, login.credential))
        await self._sessions.end(lambda each: ends(each.user, "token" if each.token else "password", each.token))


def _subject(user: str | None, token_id: str | None) -> str | None:
    """Whose failures are counted together; what cannot be a name is of nobody."""
    if token_id is not None:
        return f"token {token_id}"
    return user if user is not None and USER_PATTERN.fullmatch(user) else None


def _credential(login: Login) -> str:
    return f"{login.how} {login.credential}" if login.credential else login.how


def _has_expired(token: Token, now: datetime) -> bool:
    return token.expires_at is not None and now >= token.expires_at
