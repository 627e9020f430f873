"""Passwords are compared as given, and what is none says so without showing it."""

from __future__ import annotations

import unicodedata

import argon2
import pytest
from login_book import CHEAP

from kalam.access.passwords import HASHER, Passwords, check_password
from kalam.access.secrets import make_secret
from kalam.errors import InvalidValue

COMPOSED = unicodedata.normalize("NFC", "pässwörd")
DECOMPOSED = unicodedata.normalize("NFD", "pässwörd")


@pytest.mark.parametrize(
    "password", ["12345678", "x" * 1_024, "with\0nul!", COMPOSED, DECOMPOSED, " spaced ", "🔑" * 8, "lone\ud800one"]
)
async def test_a_password_is_itself_and_no_other(password: str) -> None:
    passwords = Passwords(CHEAP)
    encoded = await passwords.hash(password)
    assert await passwords.verify(encoded, password)
    for other in (password + "\0", password[:-1], password.upper() + "x", password.strip() + "\0", ""):
        assert not await passwords.verify(encoded, other)


async def test_the_forms_of_unicode_are_different_passwords() -> None:
    passwords = Passwords(CHEAP)
    assert not await passwords.verify(await passwords.hash(COMPOSED), DECOMPOSED)


async def test_what_stands_behind_a_nul_counts() -> None:
    passwords = Passwords(CHEAP)
    assert not await passwords.verify(await passwords.hash("before\0behind"), "before\0other!")


@pytest.mark.parametrize("password", ["", "7 chars", "x" * 1_025, "x" * 100_000])
def test_what_is_no_password_is_refused_by_its_length(password: str) -> None:
    with pytest.raises(InvalidValue, match=f"8 to 1,024 characters, and this one has {len(password):,}$"):
        check_password(password)


async def test_a_hash_of_what_is_no_password_is_refused() -> None:
    with pytest.raises(InvalidValue):
        await Passwords(CHEAP).hash("short")


def test_a_token_is_no_password_and_is_not_shown() -> None:
    token = make_secret().text
    with pytest.raises(InvalidValue, match="form of a token") as caught:
        check_password(token)
    assert token not in str(caught.value.problem())


async def test_nobody_has_a_password_and_every_one_is_wrong() -> None:
    passwords = Passwords(CHEAP)
    for password in ("12345678", "", "x" * 100_000):
        assert not await passwords.verify(None, password)


async def test_what_is_kept_in_no_form_of_argon2_verifies_nothing() -> None:
    assert not await Passwords(CHEAP).verify("plain text", "plain text")


def test_the_hash_of_nobody_costs_what_the_others_cost() -> None:
    made = argon2.extract_parameters(HASHER.hash("12345678"))
    assert argon2.extract_parameters(Passwords()._nobodys) == made  # noqa: SLF001 - what is verified for nobody


async def test_the_same_password_has_another_hash_each_time() -> None:
    passwords = Passwords(CHEAP)
    assert await passwords.hash("12345678") != await passwords.hash("12345678")
