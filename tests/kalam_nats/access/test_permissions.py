"""What a user may at the broker, as lists of subjects."""

from __future__ import annotations

import pytest

from kalam.names import TableName
from kalam_nats.access.permissions import SUBJECTS_MAX, Permissions, Reach, TableReach, permissions, table_subjects
from kalam_nats.subjects import Subjects, subject_matches, subjects_overlap

OWN = ("_INBOX.ada.>", "kalam.user.ada.>", "kalam.live.ada.>")
NOTES, LOGS = TableName("app", "notes"), TableName("app", "logs")


def of(**reach: object) -> Permissions:
    return permissions(Reach(user="ada", **reach), Subjects())  # type: ignore[arg-type]


def test_a_user_without_grants_has_requests_and_what_is_said_to_them() -> None:
    assert of() == Permissions(("kalam.api.ada.>",), OWN)


def test_a_table_with_select_is_heard_in_all_its_subjects() -> None:
    tables = (TableReach(NOTES, stream=False), TableReach(LOGS, stream=True))
    heard = ("kalam.shared.app.notes.>", "kalam.stream.app.logs", "kalam.stream.app.logs.>")
    assert of(tables=tables) == Permissions(("kalam.api.ada.>",), (*OWN, *heard))


def test_a_compiled_policy_leaves_its_keys() -> None:
    tables = (TableReach(NOTES, stream=False, keys=("k1", "k2")), TableReach(LOGS, stream=True, keys=("k1",)))
    keyed = ("kalam.shared.app.notes.*.k1", "kalam.shared.app.notes.*.k2")
    heard = (*keyed, "kalam.shared.app.notes.truncate", "kalam.stream.app.logs.k1")
    assert of(tables=tables).subscribe == (*OWN, *heard)


def test_a_policy_that_lets_no_key_through_leaves_nothing() -> None:
    assert of(tables=(TableReach(NOTES, stream=False, keys=()),)).subscribe == OWN


def test_a_namespace_is_heard_as_a_whole_but_for_what_policies_hide() -> None:
    found = of(namespaces=frozenset({"app"}), hidden=(TableReach(NOTES, stream=False), TableReach(LOGS, stream=True)))
    assert found.subscribe == (*OWN, "kalam.shared.app.>", "kalam.stream.app.>")
    assert found.deny == ("kalam.shared.app.notes.>", "kalam.stream.app.logs", "kalam.stream.app.logs.>")


def test_where_a_policy_compiles_the_tables_of_the_namespace_are_named_singly() -> None:
    tables = (TableReach(NOTES, stream=False, keys=("k",)), TableReach(TableName("app", "other"), stream=False))
    found = of(namespaces=frozenset({"app", "b"}), tables=tables, hidden=(TableReach(LOGS, stream=True),))
    notes = ("kalam.shared.app.notes.*.k", "kalam.shared.app.notes.truncate")
    heard = ("kalam.shared.b.>", "kalam.stream.b.>", *notes, "kalam.shared.app.other.>")
    assert found.subscribe == (*OWN, *heard)
    assert found.deny == ()


def test_an_administrator_hears_tables_and_events_and_nothing_of_others() -> None:
    found = of(administers=True, hidden=(TableReach(NOTES, stream=False),))
    assert found.publish == ("kalam.api.ada.>",)
    assert found.subscribe == (*OWN, "kalam.event.>", "kalam.shared.>", "kalam.stream.>")
    assert found.deny == ("kalam.shared.app.notes.>",)


def test_an_administrator_under_a_compiled_policy_hears_the_other_namespaces() -> None:
    tables = (TableReach(NOTES, stream=False, keys=("k",)),)
    found = of(administers=True, namespaces=frozenset({"app", "b"}), tables=tables)
    notes = ("kalam.shared.app.notes.*.k", "kalam.shared.app.notes.truncate")
    heard = ("kalam.event.>", "kalam.shared.b.>", "kalam.stream.b.>", *notes)
    assert found.subscribe == (*OWN, *heard)


def test_a_trusted_service_reads_its_stream_and_changes_no_stream() -> None:
    found = of(jetstream=(LOGS,))
    assert found.subscribe == OWN
    assert found.hears == (*OWN, "kalam.stream.app.logs", "kalam.stream.app.logs.>")
    for subject in (
        "$JS.API.CONSUMER.CREATE.KALAM-app-logs.c",
        "$JS.API.CONSUMER.CREATE.KALAM-app-logs.c.kalam.stream.app.logs",
        "$JS.API.CONSUMER.DURABLE.CREATE.KALAM-app-logs.c",
        "$JS.API.CONSUMER.MSG.NEXT.KALAM-app-logs.c",
        "$JS.API.DIRECT.GET.KALAM-app-logs",
        "$JS.ACK.KALAM-app-logs.c.1.2.3.4.5",
    ):
        assert any(subject_matches(allowed, subject) for allowed in found.publish), subject
    for subject in (
        "$JS.API.STREAM.PURGE.KALAM-app-logs",
        "$JS.API.STREAM.DELETE.KALAM-app-logs",
        "$JS.API.STREAM.UPDATE.KALAM-app-logs",
        "$JS.API.STREAM.MSG.DELETE.KALAM-app-logs",
        "$JS.API.CONSUMER.CREATE.KALAM-app-notes.c",
        "$JS.API.CONSUMER.MSG.NEXT.KALAM-CHANGES.c",
        "$JS.API.STREAM.CREATE.X",
        "$JS.ACK.KALAM-CHANGES.c.1.2.3.4.5",
        "kalam.stream.app.logs",
    ):
        assert not any(subject_matches(allowed, subject) for allowed in found.publish), subject


def test_more_subjects_than_a_login_can_name_are_cut_and_never_a_deny_alone() -> None:
    many = tuple(TableReach(TableName("app", f"t{n}"), stream=False) for n in range(SUBJECTS_MAX + 1))
    assert len(of(tables=many).subscribe) == len(OWN) + SUBJECTS_MAX
    hidden = of(namespaces=frozenset({"app"}), hidden=many)
    assert (hidden.subscribe, hidden.deny) == (OWN, ())


def test_what_tells_of_a_table_is_what_its_events_are_sent_on() -> None:
    subjects = Subjects()
    told = table_subjects(NOTES, subjects)
    for event in (
        subjects.change_subject("", "app", "notes", "insert"),
        subjects.change_subject("", "app", "notes", "delete", "k"),
        subjects.stream_event_subject("app", "notes"),
        subjects.stream_event_subject("app", "notes", "k"),
    ):
        assert any(subject_matches(subject, event) for subject in told)
    assert not any(subject_matches(subject, "kalam.shared.app.notes2.insert") for subject in told)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.c", True),
        ("a.*", "*.c", True),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        ("a.*.c", "a.>", True),
        ("a.b.*", "a.c.>", False),
        ("a.b", "a.b.c", False),
        (">", "a", True),
    ],
)
def test_patterns_overlap(one: str, other: str, overlap: bool) -> None:
    assert subjects_overlap(one, other) is overlap
    assert subjects_overlap(other, one) is overlap
