"""Tokens and sessions: random, known by their form, and kept as hashes."""

from __future__ import annotations

import re

import pytest

from kalam.access.secrets import SESSION, TOKEN, hash_of, id_of, is_hash_of, is_token, make_secret


def test_a_token_tells_its_id_and_keeps_only_a_hash() -> None:
    made = make_secret()
    assert re.fullmatch(r"kalam_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", made.text)
    assert id_of(made.text) == made.id
    assert is_hash_of(made.hash, made.text)
    assert made.text[-43:].encode() not in made.hash


def test_no_two_are_alike() -> None:
    made = [make_secret() for _ in range(1_000)]
    assert len({each.text[-43:] for each in made}) == len({each.id for each in made}) == 1_000


def test_a_token_is_no_session() -> None:
    token, session = make_secret(TOKEN), make_secret(SESSION)
    assert id_of(token.text, SESSION) is None
    assert id_of(session.text, TOKEN) is None
    assert id_of(session.text, SESSION) == session.id
    assert is_token(token.text)
    assert not is_token(session.text)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.upper(),
        lambda text: text.replace("_", "-", 1),
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "\0",
        lambda text: text * 1_000,
    ],
)
def test_what_has_another_form_is_no_token(change: object) -> None:
    assert callable(change)
    assert id_of(change(make_secret().text)) is None


def test_a_secret_that_differs_anywhere_is_another() -> None:
    made = make_secret()
    for place in range(len(made.text)):
        other = made.text[:place] + ("A" if made.text[place] != "A" else "B") + made.text[place + 1 :]
        assert not is_hash_of(hash_of(made.text), other)
