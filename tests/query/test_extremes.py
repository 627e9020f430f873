"""The greatest and the least of groups of DOUBLEs and FLOATs, of every mixture of the unusual ones among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from kalam.query.exact.rewrite import ExactQueries, exact_config

Values = Sequence[float | None]
INF, NAN = math.inf, math.nan
LARGEST = {pa.float64(): 1.7976931348623157e308, pa.float32(): 3.4028234663852886e38}
TEXTS: dict[str, Callable[[Values], Values]] = {
    "SELECT g, max({v}) AS a, min({v}) AS b FROM t GROUP BY g": lambda group: group,
    "SELECT g, max(DISTINCT {v}) AS a, min(DISTINCT {v}) AS b FROM t GROUP BY g": lambda group: group,
    "SELECT g, max({v}) FILTER (WHERE odd) AS a, min({v}) FILTER (WHERE odd) AS b FROM t GROUP BY g": lambda group: (
        group[::2]
    ),
}


def chosen(values: Values, choose: Callable[..., float]) -> float | None:
    """What PostgreSQL answers: NaN is greater than every other number, NULL is none."""
    known = [value for value in values if value is not None]
    return choose(known, key=lambda value: (math.isnan(value), value if value == value else 0)) if known else None


@pytest.mark.parametrize("kind", LARGEST, ids=str)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("value", ["v", "v * 1"])
def test_the_extremes_of_groups_are_those_of_their_numbers(kind: pa.DataType, text: str, value: str) -> None:
    largest = LARGEST[kind]
    numbers = [None, NAN, -NAN, INF, -INF, largest, -largest, 0.0, -1.5]
    groups = [group for size in (1, 2, 3) for group in itertools.product(numbers, repeat=size)]
    rows = [(g, v, place % 2 == 0) for g, group in enumerate(groups) for place, v in enumerate(group)]
    places, values, odd = zip(*rows, strict=True)
    table = pa.table({"g": pa.array(places), "v": pa.array(values, kind), "odd": pa.array(odd)})
    ctx = SessionContext(exact_config(SessionConfig().with_target_partitions(2)))
    ctx.from_arrow(table, "t")
    found = ExactQueries(ctx).plan(text.format(v=value), {}, [table.schema]).to_pylist()
    expected = [(g, chosen(TEXTS[text](group), max), chosen(TEXTS[text](group), min)) for g, group in enumerate(groups)]
    assert sorted(map(repr, ((row["g"], row["a"], row["b"]) for row in found))) == sorted(map(repr, expected))
