"""Who sends a request, and whether it may be taken: the one place that believes a subject's user.

A subject names the user; that nobody publishes on another's is for the broker to see to. What it does not see to, where
logins are asked for, is looked at here: an answer goes into an inbox of the sender's own and nowhere else, or a request
would be a way to publish anywhere; and a header of NATS's own is none of a sender's business but for the one that makes
an insert idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kalam.access.login import Login
from kalam.engine import Caller, Engine, Identity, Session
from kalam.errors import InvalidValue, KalamError, PermissionDenied, Unauthenticated
from kalam_nats.broker.interest import Interest
from kalam_nats.door.departures import departure_of
from kalam_nats.subjects import Subjects, inbox_prefix

NATS_DOOR: Final = "nats"
KNOWN_MAX: Final = 100_000
_OURS: Final = "nats-"
_ALLOWED: Final = "nats-msg-id"


class Senders:
    """Makes identities of subjects.

    Where logins are asked for ``may_send`` tells whether a user is there and may log in, and ``login_of`` by what.
    ``inboxes`` has, for the subjects of users who may, what the reply subjects of their requests begin with.
    """

    def __init__(
        self,
        subjects: Subjects,
        may_send: Callable[[str], bool] | None = None,
        login_of: Callable[[str], Login] | None = None,
    ) -> None:
        self._subjects, self._may_send, self._login_of = subjects, may_send, login_of
        self.inboxes: dict[bytes, bytes] = {}
        self.guarded = may_send is not None

    def identify(self, user: str) -> Identity:
        """Who asks, as the subject of the request says; raises Unauthenticated if the user may not any more."""
        if self._may_send is not None and not self._may_send(user):
            raise Unauthenticated("the user does not exist any more, or may not log in")
        if self._login_of is None:
            return Identity(user)
        login = self._login_of(user)
        return Identity(user, how=login.how, credential=login.credential, ends_at=login.ends_at)

    def forget(self) -> None:
        """Believe nothing that was believed before: somebody may do less."""
        self.inboxes.clear()

    def fault(self, subject: bytes, reply: bytes, headers: Mapping[str, str] | None) -> tuple[KalamError, bytes] | None:
        """Why a message is not taken, and the reply subject if that may be told there; None for one that is taken."""
        if self._may_send is None:
            return None
        inbox = self.inboxes.get(subject)
        if inbox is None:
            try:
                inbox = self._inbox(subject)
            except KalamError as exc:
                return exc.as_value(), b""
        if reply and not reply.startswith(inbox):
            prefix = inbox.decode().rstrip(".")
            return PermissionDenied(
                f"an answer goes to {prefix}.… only: set the client's inbox prefix to {prefix}"
            ), b""
        for name in headers or ():
            lower = name.lower()
            if lower.startswith(_OURS) and lower != _ALLOWED:
                return InvalidValue(f"the header {name[:64]} is NATS's own, of which only Nats-Msg-Id is taken"), reply
        return None

    def _inbox(self, subject: bytes) -> bytes:
        """What the reply subjects of a request begin with; raises InvalidName and Unauthenticated."""
        user = self._subjects.parse_user(subject.decode("utf-8", "replace"))
        self.identify(user)
        if len(self.inboxes) >= KNOWN_MAX:
            self.inboxes.clear()
        inbox = self.inboxes[subject] = f"{inbox_prefix(user)}.".encode()
        return inbox


def caller_of(engine: Engine, session: Session, reply: str = "", interest: Interest | None = None) -> Caller:
    """A request at this door; where it has a reply subject it is cancelled when nobody waits for the answer."""
    departure = departure_of(reply, interest) if reply and interest is not None else None
    return engine.caller(session, NATS_DOOR, departure=departure)
