"""Which requests are taken where logins are asked for."""

from __future__ import annotations

import pytest

from kalam_nats.door.senders import Senders
from kalam_nats.subjects import Subjects

SUBJECT = b"kalam.api.ada.insert.app.notes"
USERS = {"ada"}
GUARDED = Senders(Subjects(), USERS.__contains__)


def code_of(
    senders: Senders, subject: bytes, reply: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[str, bytes] | None:
    fault = senders.fault(subject, reply, headers)
    return None if fault is None else (fault[0].code, fault[1])


@pytest.mark.parametrize("reply", [b"", b"_INBOX.ada.1", b"_INBOX.ada.a.b"])
@pytest.mark.parametrize("headers", [None, {}, {"Nats-Msg-Id": "1"}, {"Content-Type": "x", "Kalam-Mode": "y"}])
def test_what_is_answered_in_an_inbox_of_the_senders_own_is_taken(reply: bytes, headers: dict[str, str] | None) -> None:
    assert code_of(GUARDED, SUBJECT, reply, headers) is None


@pytest.mark.parametrize(
    "reply",
    [
        b"_INBOX.ben.1",
        b"_INBOX.ada",
        b"_INBOX.adam.1",
        b"_INBOX.abc",
        b"_INBOX.ADA.1",
        b"kalam.shared.app.notes.insert",
        b"kalam.api.ben.sql",
        b"kalam.user.ada.x",
        b"$JS.API.STREAM.PURGE.KALAM-CHANGES",
        b"x_INBOX.ada.1",
        b"\xff",
    ],
)
def test_an_answer_goes_nowhere_else_and_nobody_is_told_there(reply: bytes) -> None:
    assert code_of(GUARDED, SUBJECT, reply) == ("permission_denied", b"")
    assert code_of(Senders(Subjects()), SUBJECT, reply) is None


@pytest.mark.parametrize(
    "header", ["Nats-Trace-Dest", "Nats-Rollup", "nats-expected-stream", "NATS-TTL", "Nats-Schedule", "Nats-Msg-Idx"]
)
def test_headers_of_the_brokers_own_are_refused(header: str) -> None:
    assert code_of(GUARDED, SUBJECT, b"_INBOX.ada.1", {header: "x"}) == ("invalid_value", b"_INBOX.ada.1")
    assert code_of(Senders(Subjects()), SUBJECT, b"", {header: "x"}) is None


@pytest.mark.parametrize("subject", [b"kalam.api.ben.sql", b"kalam.api.ADA.sql"])
def test_a_user_who_is_not_there_sends_nothing(subject: bytes) -> None:
    assert code_of(GUARDED, subject, b"_INBOX.ben.1") == ("unauthenticated", b"")


@pytest.mark.parametrize("subject", [b"kalam.api", b"kalam.api.", b"kalam.api..sql", b"other.api.ada.sql", b"\xff"])
def test_a_subject_that_names_nobody_is_refused(subject: bytes) -> None:
    assert code_of(GUARDED, subject) == ("invalid_name", b"")


def test_a_user_who_may_not_any_more_is_refused_once_that_is_said() -> None:
    users = {"ada"}
    senders = Senders(Subjects(), users.__contains__)
    assert code_of(senders, SUBJECT) is None
    users.clear()
    senders.forget()
    assert code_of(senders, SUBJECT) == ("unauthenticated", b"")
