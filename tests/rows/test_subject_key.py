"""A SUBJECT_KEY's token is one token, and no two values of a column share one."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalam.errors import InvalidValue
from kalam.rows.subject_key import KEY_BYTES_MAX, key_token

SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=KEY_BYTES_MAX // 4)
PLAIN = re.compile(r"[A-Za-z0-9_-]+")


@given(text=SHORT)
def test_a_token_is_plain_or_says_its_text_in_base64url(text: str) -> None:
    token = key_token(text)
    if token.startswith("="):
        assert base64.urlsafe_b64decode(token[1:] + "=" * (-len(token[1:]) % 4)).decode() == text
        assert "=" not in token[1:]
    else:
        assert token == (text or "-")
    assert PLAIN.fullmatch(token.removeprefix("="))


@given(a=SHORT, b=SHORT)
def test_two_texts_have_two_tokens(a: str, b: str) -> None:
    assert (key_token(a) == key_token(b)) == (a == b)


@pytest.mark.parametrize("text", ["x" * (KEY_BYTES_MAX + 1), "ü" * KEY_BYTES_MAX, "\ud800"])
def test_a_text_that_makes_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        key_token(text)
