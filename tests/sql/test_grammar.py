"""Whatever is sent, the parser answers with statements or with an error of Kalam's."""

from __future__ import annotations

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kalam.errors import KalamError
from kalam.sql import parse, parse_live, parse_statement, split
from kalam.sql.text.statements import Select

WORDS = r"""
    SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE STREAM NAMESPACE ( ) ( ) , ; * . = + - 1
    2.5 'a' "q" $1 $$x$$ t a b ns _deleted WITH AS ON CONFLICT DO NOTHING RETURNING EXPLAIN ANALYZE ALTER ADD
    COLUMN DROP SUBSCRIBE TO OPTIONS last_rows SHOW TABLES IN KILL JOB FLUSH ALL PRIMARY KEY DEFAULT NOW() NOT
    NULL INT TEXT DECIMAL RETENTION 10s EPHEMERAL UNION JOIN CASE WHEN THEN END [ ] { } :: CAST E'\n' -- /* */
    INTERVAL DATE TIMESTAMP IS DISTINCT BETWEEN AND OR LIKE LATERAL UNNEST OVER PARTITION BY ORDER GROUP LIMIT
    array struct map json x'4' X'41' @ # ? : ~ ! % ^ & | < > \ ` é 1e5 1e999 .. u&'x' n'x' b'1' 🙂
"""
WORD_TEXTS = st.lists(st.sampled_from([*WORDS.split(), "\n"]), max_size=25).map(" ".join)
BEGINNINGS = st.sampled_from(
    [
        "",
        "SELECT ",
        "UPDATE t SET a = ",
        "INSERT INTO t VALUES (",
        "CREATE TABLE t (a TEXT DEFAULT ",
        "ALTER TABLE t ",
        "DELETE FROM t WHERE ",
    ]
)


def answered(text: str) -> None:
    with contextlib.suppress(KalamError):
        parse(text)
    with contextlib.suppress(KalamError):
        parse_live(text)


@settings(max_examples=400, deadline=None)
@given(BEGINNINGS, WORD_TEXTS | st.text(max_size=60))
@example("", "\ud800")
@example("", "\x00")
@example("SELECT ", "E'\\xff'")
@example("SELECT ", "'\\' || 1")
def test_every_text_is_answered(beginning: str, text: str) -> None:
    answered(beginning + text)


@settings(max_examples=200, deadline=None)
@given(WORD_TEXTS)
def test_a_mention_is_the_name_of_its_table(text: str) -> None:
    try:
        statement = parse_statement("SELECT * FROM t, " + text)
    except KalamError:
        return
    assert isinstance(statement, Select)
    for use in statement.query.tables:
        written = statement.query.text[use.start : use.end]
        assert use.ref.table in written.lower()


@settings(max_examples=200, deadline=None)
@given(st.lists(WORD_TEXTS, min_size=1, max_size=3).map(";".join))
def test_the_pieces_of_a_request_stand_where_they_say(text: str) -> None:
    try:
        pieces = split(text)
    except KalamError:
        return
    assert all(text.startswith(piece.text, piece.offset) for piece in pieces)
    assert [piece.offset for piece in pieces] == sorted({piece.offset for piece in pieces})
