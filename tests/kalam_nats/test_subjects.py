"""Subjects and keys, to the letter of the contract."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalam.errors import InvalidName, InvalidValue
from kalam.rows.subject_key import key_token
from kalam_nats.subjects import Subjects, subject_matches

KALAM = Subjects()


def encoded(text: str) -> str:
    return "=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_subjects_are_those_of_the_contract() -> None:
    assert KALAM.insert_subject("u", "app", "t") == "kalam.api.u.insert.app.t"
    assert KALAM.sql_subject("u") == "kalam.api.u.sql"
    assert KALAM.live_subject("u") == "kalam.api.u.live"
    assert KALAM.live_close_subject("u", "7") == "kalam.api.u.live.7.close"
    assert KALAM.live_messages_subject("u", "7") == "kalam.live.u.7"
    assert KALAM.stream_event_subject("app", "t") == "kalam.stream.app.t"
    assert KALAM.stream_event_subject("app", "t", "k") == "kalam.stream.app.t.k"
    assert KALAM.change_subject("", "app", "t", "insert") == "kalam.shared.app.t.insert"
    assert KALAM.change_subject("u", "app", "t", "delete", "k") == "kalam.user.u.app.t.delete.k"
    assert KALAM.rejected_subject("app", "t") == "kalam.event.rejected.app.t"
    assert KALAM.rejected_subject("app", "t", "u") == "kalam.user.u.app.t.rejected"
    assert KALAM.event_subject("table.created") == "kalam.event.table.created"


def test_streams_are_named_after_the_prefix_in_capitals() -> None:
    other = Subjects("my_db")
    assert (KALAM.stream_name("app", "t"), other.stream_name("app", "t")) == ("KALAM-app-t", "MY_DB-app-t")
    assert (KALAM.changes_stream, KALAM.user_changes_stream) == ("KALAM-CHANGES", "KALAM-USER-CHANGES")


def test_without_names_the_served_pattern_is_built() -> None:
    assert KALAM.insert_subject() == "kalam.api.*.insert.*.*"
    assert KALAM.sql_subject() == "kalam.api.*.sql"
    assert KALAM.live_close_subject() == "kalam.api.*.live.*.close"


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("operation", ["insert", "update", "delete"])
def test_the_change_streams_capture_each_change_and_no_rejected_insert(operation: str, key: str | None) -> None:
    shared = KALAM.change_subject("", "app", "t", operation, key)  # type: ignore[arg-type]
    user = KALAM.change_subject("u", "app", "t", operation, key)  # type: ignore[arg-type]
    assert [subject_matches(pattern, shared) for pattern in KALAM.changes_subjects] == [True]
    assert sum(subject_matches(pattern, user) for pattern in KALAM.user_changes_subjects) == 1
    rejected = KALAM.rejected_subject("app", "t", "u")
    assert not any(subject_matches(pattern, rejected) for pattern in KALAM.user_changes_subjects)


def test_a_stream_table_captures_its_keyed_events() -> None:
    assert KALAM.stream_event_subjects("app", "t", keyed=False) == "kalam.stream.app.t"
    assert KALAM.stream_event_subjects("app", "t", keyed=True) == "kalam.stream.app.t.*"


def test_requests_are_parsed() -> None:
    assert KALAM.parse_insert_subject("kalam.api.U-1_.insert.app.t") == ("U-1_", "app", "t")
    assert KALAM.parse_sql_subject("kalam.api.u.sql") == "u"
    assert KALAM.parse_live_subject("kalam.api.u.live") == "u"
    assert KALAM.parse_live_close_subject("kalam.api.u.live.7.close") == ("u", "7")
    assert Subjects("other").parse_insert_subject("other.api.u.insert.app.t") == ("u", "app", "t")


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "kalam.api.u.insert.app",
        "kalam.api.u.insert.app.t.more",
        "kalam.api.u.insert.app.",
        "kalam.api.u.insert..t",
        "kalam.api..insert.app.t",
        "kalam.api.u.sql.app.t",
        "other.api.u.insert.app.t",
        "xkalam.api.u.insert.app.t",
        "kalamxapi.u.insert.app.t",
        "kalam.api.ü.insert.app.t",
        "kalam.api.*.insert.app.t",
        "kalam.api.u.insert.*.t",
        "kalam.api.u.insert.app.>",
        "kalam.api.u.insert.app.t\n",
        f"kalam.api.{'u' * 65}.insert.app.t",
        f"kalam.api.u.insert.{'a' * 64}.t",
    ],
)
def test_any_other_subject_is_refused(subject: str) -> None:
    with pytest.raises(InvalidName, match=r"not of the form kalam\.api\.<user>"):
        KALAM.parse_insert_subject(subject)


@pytest.mark.parametrize("subject", ["kalam.api.u.live", "kalam.api.u.sql.x", "kalam.api.u.live.7.close.x"])
def test_no_request_is_taken_for_another(subject: str) -> None:
    for parse in (KALAM.parse_sql_subject, KALAM.parse_live_close_subject, KALAM.parse_insert_subject):
        with pytest.raises(InvalidName):
            parse(subject)


def test_a_refused_subject_is_shown_cut() -> None:
    with pytest.raises(InvalidName) as error:
        KALAM.parse_insert_subject("x" * 4000)
    assert len(error.value.detail) < 300


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (None, "-"),
        ("", "-"),
        (b"", "-"),
        ("-", "=LQ"),
        ("--", "--"),
        ("sensor_7-B", "sensor_7-B"),
        ("NULL", "NULL"),
        ("two words", encoded("two words")),
        ("a.b", encoded("a.b")),
        ("*", encoded("*")),
        (">", encoded(">")),
        ("=", encoded("=")),
        ("a\n", encoded("a\n")),
        ("größe", encoded("größe")),
        ("\u0661", encoded("\u0661")),
        ('"', encoded('"')),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-9223372036854775808, "-9223372036854775808"),
        (1.5, encoded("1.5")),
        (2.0, encoded("2.0")),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (Decimal(12), "12"),
        (Decimal("-1.50"), encoded("-1.50")),
        (Decimal("1E+3"), "1000"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC), encoded("2024-02-29T01:02:03.000000Z")),
        (
            datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
            encoded("2024-02-28T23:02:03.000004Z"),
        ),
        (datetime(7, 1, 1, tzinfo=UTC), encoded("0007-01-01T00:00:00.000000Z")),
        (UUID("0190a6f2-1111-7000-8000-00000000abcd"), "0190a6f2-1111-7000-8000-00000000abcd"),
        (b"\xff\xfe", encoded("//4=")),
        (b"abc", "YWJj"),
        ("x" * 128, "x" * 128),
        ("é" * 64, encoded("é" * 64)),
    ],
)
def test_a_key_is_the_values_json_text_or_its_base64(value: object, token: str) -> None:
    assert key_token(value) == token


@pytest.mark.parametrize("value", ["x" * 129, "é" * 65, "." * 129, b"x" * 100, 10**128])
def test_a_value_over_128_bytes_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match="at most 128"):
        key_token(value)


@pytest.mark.parametrize("value", ["\ud800", [1], {"a": 1}])
def test_a_value_without_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue):
        key_token(value)


@given(st.text(max_size=40).filter(lambda text: len(text.encode(errors="replace")) <= 128))
def test_every_text_is_one_token_and_comes_back(text: str) -> None:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    token = key_token(text)
    assert not set(token) & set(".*> \t\r\n")
    if token == "-":
        assert text == ""
    elif token.startswith("="):
        assert base64.urlsafe_b64decode(token[1:] + "=" * (-len(token[1:]) % 4)) == raw
    else:
        assert token == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_the_same_number_when_it_is_read_back(value: float) -> None:
    token = key_token(value)
    text = base64.urlsafe_b64decode(token[1:] + "==").decode() if token.startswith("=") else token
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("a.b", True),
        ("a.*", True),
        ("*.b", True),
        (">", True),
        ("a.>", True),
        ("a.b.>", False),
        ("a", False),
        ("a.b.*", False),
        ("a.c", False),
        ("b.>", False),
    ],
)
def test_a_pattern_matches_as_in_nats(pattern: str, matches: bool) -> None:
    assert subject_matches(pattern, "a.b") is matches
