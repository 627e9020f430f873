"""Tokens and keys: random, known by their form, kept as hashes or for the server's user alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kalam.access.secrets import SESSION, TOKEN, hash_of, id_of, is_hash_of, is_token, kept_key, make_secret
from kalam.errors import StorageFull, Unavailable


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


def test_a_key_is_made_once_and_for_the_servers_user_alone(tmp_path: Path) -> None:
    key = kept_key(tmp_path / "own.key")
    assert len(key) == 32
    assert kept_key(tmp_path / "own.key") == key
    assert kept_key(tmp_path / "other.key") != key
    assert (tmp_path / "own.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.key", "own.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "own.key"
    key = kept_key(path)
    path.chmod(mode)
    with pytest.raises(Unavailable, match="others can read") as caught:
        kept_key(path)
    assert key.hex() not in str(caught.value.problem())


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="damaged"):
        kept_key(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="cannot be written"):
        kept_key(tmp_path / "no folder" / "own.key")
