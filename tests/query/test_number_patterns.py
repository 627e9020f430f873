"""``to_char`` of numbers writes what PostgreSQL 15 writes, or refuses the element by its name."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from beside_postgres import real_postgres
from server_process import ServerProcess, SqlFailed

from kalam.query.exact.checked import OutOfRange
from kalam.query.postgresql.number_patterns import double_texts, exact_texts, float_texts

WRITTEN = [
    ("1234567.891", "9,999,999.99", " 1,234,567.89"),
    ("1234567.891", "FM9G999G999D00", "1,234,567.89"),
    ("-485", "999MI", "485-"),
    ("-485", "999PR", "<485>"),
    ("485", "S999", "+485"),
    ("485", "999S", "485+"),
    ("-0.1", "99.99", "  -.10"),
    ("-0.1", "FM9.99", "-.1"),
    ("0.1", "FM90.99", "0.1"),
    ("12", "FM9990.9", "12."),
    ("12", "0000", " 0012"),
    ("148.5", "999D999", " 148.500"),
    ("3148.5", "9G999D999", " 3,148.500"),
    ("485", '"Good number:"999', "Good number: 485"),
    ("12345", "999", " ###"),
    ("0.995", "FM0.00", "1.00"),
    ("485", "L999", "  485"),
]
NUMBERS = [
    *("0", "1", "-1", "12", "-12.5", "0.5", "-0.5", "0.05", "-0.005", "1234567.891", "-1234.5", "99.995", "1000"),
    *("100.10", "-0.1", "123456789", "0.00", "9007199254740993", "0.1234567890123456789"),
]
SIGNS = [
    ("", ""),
    ("", ""),
    ("S", ""),
    ("", "S"),
    ("MI", ""),
    ("", "MI"),
    ("", "PR"),
    ("FM", ""),
    ("FM", "S"),
    ("FM", "PR"),
]
KINDS: dict[str, Callable[[str, str], pa.Array]] = {
    "numeric": lambda number, pattern: exact_texts(pa.array([number]), pa.array([pattern])),
    "int8": lambda number, pattern: exact_texts(pa.array([number]), pa.array([pattern])),
    "float8": lambda number, pattern: double_texts(pa.array([float(number)]), pa.array([pattern])),
    "float4": lambda number, pattern: float_texts(
        pa.array([float(number)], pa.float32()).cast(pa.float64()), pa.array([pattern])
    ),
}


@pytest.fixture(scope="module")
def real() -> Iterator[psycopg.Connection]:
    with real_postgres() as connection:
        yield connection


@pytest.mark.parametrize(("number", "pattern", "text"), WRITTEN)
def test_a_number_is_written_as_the_pattern_says(number: str, pattern: str, text: str) -> None:
    assert KINDS["numeric"](number, pattern)[0].as_py() == text


def pattern_of(rng: random.Random) -> str:
    before, behind = rng.choice(SIGNS)
    digits = "".join(rng.choice("999900,G") for _ in range(rng.randrange(1, 9)))
    digits += rng.choice([".", "D", ""]) + "".join(rng.choice("990") for _ in range(rng.randrange(4)))
    text = rng.choice(["", "", "", '"n: "', "%", "L"])
    written = text + before + digits + behind
    return "9" if re.search("SG", written) else written  # SG is an element of its own


@pytest.mark.parametrize("seed", range(4))
def test_patterns_at_random_write_what_postgresql_writes(real: psycopg.Connection, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        number, pattern = rng.choice(NUMBERS), pattern_of(rng)
        for kind in KINDS if "." not in number else KINDS.keys() - {"int8"}:
            try:
                cursor = real.execute(f"SELECT to_char({number}::{kind}, '{pattern}')".encode())
                [[expected]] = cursor.fetchall()
            except psycopg.Error:
                expected = None
            try:
                found = KINDS[kind](number, pattern)[0].as_py()
            except OutOfRange:
                found = None
            assert (number, kind, pattern, found) == (number, kind, pattern, expected)


def test_each_type_is_written_in_a_query(shared_server: ServerProcess) -> None:
    def asked(text: str) -> list[list[Any]]:
        return shared_server.sql(text)

    assert asked("SELECT to_char(1234.5, 'FM9,999.00'), to_char(7, '00'), to_char(-7::smallint, '9MI')") == [
        ["1,234.50", " 07", "7-"]
    ]
    assert asked(
        "SELECT to_char(1e3::float8, '9999.9'), to_char(0.1::real, '0.999999999'), to_char(NULL::int, '9')"
    ) == [[" 1000.0", " 0.10000", None]]
    summed = "SELECT to_char(sum(v), p) FROM (VALUES (1.25, 'S99.9'), (2.25, 'S99.9')) AS t(v, p) GROUP BY p"
    assert asked(summed) == [[" +3.5"]]
    assert asked("SELECT to_char(count(*), '99%') FROM (VALUES (1), (2)) AS t(v)") == [["  2%"]]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("to_char(1, '9EEEE')", "EEEE"),
        ("to_char(1, 'RN')", "RN"),
        ("to_char(1, '9th')", "TH"),
        ("to_char(1, '9V9')", "V"),
        ("to_char(1, 'SG9')", "SG"),
        ("to_char(1, '9.9.9')", "decimal point"),
        ("to_char('NaN'::float8, '9')", "nan"),
    ],
)
def test_what_is_not_offered_is_refused_by_its_name(shared_server: ServerProcess, expression: str, told: str) -> None:
    with pytest.raises(SqlFailed, match=told) as caught:
        shared_server.sql(f"SELECT {expression}")
    assert caught.value.code == "invalid_value"
