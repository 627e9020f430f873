"""What is written into a text stands where it was asked for, and the mentions of tables in it are still found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kalam.sql.text.edits import Edits
from kalam.sql.text.statements import QueryText, TableRef, TableUse

WORDS = st.lists(st.sampled_from(["a", "t1", "t2", "t3", "'x'", "(b)"]), max_size=12)
WRITTEN = st.sampled_from(["", "!", "<longer than it was>"])


def mention(text: str, name: str, start: int = 0) -> TableUse:
    at = text.index(name, start)
    return TableUse(TableRef(None, name), at, at + len(name), aliased=False, sees_deleted=False)


def test_mentions_move_with_what_is_written_before_them_and_with_nothing_else() -> None:
    text = "SELECT a, b FROM t WHERE a = 'x'"
    edits = Edits(text)
    edits.replace((7, 8), "first")
    edits.enclose((10, 11), behind=" AS c")
    edits.replace((text.index("'x'"), len(text)), "$1")
    query = edits.applied(QueryText(text, (mention(text, "t", 17),)))
    assert query.text == "SELECT first, b AS c FROM t WHERE a = $1"
    assert query.text[query.tables[0].start : query.tables[0].end] == "t"


def test_a_text_in_which_nothing_is_written_stays_the_same_value() -> None:
    query = QueryText("SELECT 1")
    assert Edits(query.text).applied(query) is query


def test_what_encloses_a_part_is_written_around_what_is_in_it() -> None:
    edits = Edits("a + b")
    edits.replace((4, 5), "c")
    edits.enclose((4, 5), "f(", ")")
    edits.enclose((4, 5), "g(", ")")
    assert edits.part((4, 5)) == "g(f(c))"
    edits.enclose((0, 5), "(", ")")
    assert edits.whole == "(a + g(f(c)))"


def test_a_part_that_is_replaced_whole_loses_what_was_written_in_it() -> None:
    edits = Edits("a + b")
    edits.enclose((0, 1), "f(", ")")
    edits.replace_whole((0, 5), "sum")
    assert edits.whole == "sum"


@given(WORDS, st.data())
def test_every_mention_is_found_again_whatever_is_written_around_it(words: list[str], data: st.DataObject) -> None:
    text, uses, edits, expected = "", [], Edits(" ".join(words)), []
    for word in words:
        span = (len(text), len(text) + len(word))
        if word.startswith("t"):
            uses.append(TableUse(TableRef(None, word), *span, aliased=False, sees_deleted=False))
            expected.append(word)
        elif data.draw(st.booleans()):
            written = data.draw(WRITTEN)
            edits.replace(span, written)
            expected.append(written)
        else:
            before, behind = data.draw(WRITTEN), data.draw(WRITTEN)
            edits.enclose(span, before, behind)
            expected.append(before + word + behind)
        text += word + " "
    query = edits.applied(QueryText(" ".join(words), tuple(uses)))
    assert query.text == " ".join(expected)
    assert [query.text[use.start : use.end] for use in query.tables] == [use.ref.table for use in uses]
