"""What the functions with patterns keep of them has a bound on its bytes."""

from __future__ import annotations

import tracemalloc

import pyarrow as pa
import pytest

from kalam.query.postgresql import number_patterns, patterns
from kalam.query.postgresql.json_steps import along
from kalam.query.postgresql.kept import CHARACTERS_MAX, TEXTS_MAX, kept
from kalam.query.postgresql.similar import similar

ROWS, LONG = 300, 20_000
LONG_TEXTS = [f"{number:05}".replace("0", "x").ljust(LONG, "-") for number in range(ROWS)]


def test_short_texts_are_read_once_and_long_ones_each_time() -> None:
    asked: list[tuple[str, str]] = []

    @kept
    def read(one: str, other: str) -> int:
        asked.append((one, other))
        return len(asked)

    assert [read("a", "b"), read("a", "b"), read("ab", "")] == [1, 1, 2]
    half = "x" * (CHARACTERS_MAX // 2)
    assert [read(half, half), read(half, half), read(half, half + "x"), read(half, half + "x")] == [3, 3, 4, 5]
    for number in range(TEXTS_MAX):
        read(str(number), "")
    before = len(asked)
    read("a", "b")
    assert len(asked) == before + 1


@pytest.mark.parametrize("function", ["numbers", "times", "similar", "paths"])
def test_long_patterns_are_not_kept(function: str) -> None:
    def run(texts: list[str]) -> None:
        given = pa.array(texts)
        match function:
            case "numbers":
                number_patterns.exact_texts(pa.array(["1"] * len(texts)), pa.array([f'"{text}"' for text in texts]))
            case "times":
                patterns.shown(pa.array([0] * len(texts), pa.timestamp("us", "UTC")), given)
            case "similar":
                similar(pa.array(["a"] * len(texts)), given, pa.array(["\\"] * len(texts)))
            case "paths":
                for text in texts:
                    along({}, f"{{{text}}}")

    run(LONG_TEXTS[:1])
    tracemalloc.start()
    try:
        run(LONG_TEXTS)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < ROWS * LONG // 4
