"""Kalam's keys at a broker, in files of the owner's."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kalam.errors import InvalidOption
from kalam_nats.access.keys import FOLDER, Keys, keep_keys, kept_keys


def test_keys_are_made_once_and_read_again(data_dir: Path) -> None:
    assert kept_keys(data_dir) is None
    made = keep_keys(data_dir)
    kept = kept_keys(data_dir)
    assert kept is not None
    assert kept.public == made.public == keep_keys(data_dir).public
    assert [file.name for file in data_dir.iterdir()] == [FOLDER]


def test_seeds_are_for_their_owner_alone(data_dir: Path) -> None:
    keep_keys(data_dir)
    for file in (data_dir / FOLDER, *(data_dir / FOLDER).iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_each_new_set_is_another() -> None:
    assert Keys.new().public != Keys.new().public


@pytest.mark.parametrize("text", ["", "SUAAA", "\N{SNOWMAN}"])
def test_a_file_that_holds_no_key_is_named(data_dir: Path, text: str) -> None:
    keep_keys(data_dir)
    file = data_dir / FOLDER / "issuer.nk"
    file.write_text(text)
    with pytest.raises(InvalidOption, match=FOLDER):
        kept_keys(data_dir)
    file.unlink()
    with pytest.raises(InvalidOption, match=FOLDER):
        keep_keys(data_dir)
