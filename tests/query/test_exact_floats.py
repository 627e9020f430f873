"""DOUBLEs and FLOATs leave their range by an error; an infinity that is stored takes part as IEEE 754 has it.

The rules are PostgreSQL's; where it has no such function or a narrower result, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from datafusion import SessionConfig, SessionContext

from kalam.errors import KalamError
from kalam.query.exact.rewrite import ExactQueries, exact_config
from kalam.query.worker.faults import explain

INF, NAN = math.inf, math.nan
ROWS = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5], pa.int32()),
        "x": pa.array([1e308, -1e308, INF, -0.0, None], pa.float64()),
        "y": pa.array([2.0, 0.0, -INF, NAN, 4.0], pa.float64()),
        "f": pa.array([3e38, 1.5, INF, -0.0, None], pa.float32()),
        "k": pa.array([2, 0, 1, 10, None], pa.int64()),
        "s": pa.array(["1e400", "-inf", "1e39", "12", None], pa.string()),
        "g": pa.array([1, 1, 2, 2, 3], pa.int32()),
    }
)
TOO_LARGE, ZERO, NONE, UNDEFINED = "is out of range of", "division by zero", "has no value", "is undefined"
WRONG = (TOO_LARGE, ZERO, NONE, UNDEFINED)

# An expression, the row that it is computed for, and its value, or the words of its error.
VALUES: list[tuple[str, int, Any]] = [
    ("x * 10", 1, TOO_LARGE),
    ("x * 10", 3, INF),
    ("x * 10", 4, 0.0),
    ("x * 10", 5, None),
    ("x * 0.5", 1, 5e307),
    ("x + 1", 1, 1e308),
    ("x + x", 1, TOO_LARGE),
    ("x - -x", 1, TOO_LARGE),
    ("x + y", 3, NAN),
    ("x - y", 3, INF),
    ("x * 0", 3, NAN),
    ("-y", 4, NAN),
    ("-(x + y)", 3, NAN),
    ("1 - -y", 4, NAN),
    ("x % 2", 3, NAN),
    ("f - f", 3, NAN),
    ("x - x > 5", 3, True),
    ("-y = 'NaN'", 4, True),
    ("-x * 10", 2, TOO_LARGE),
    ("(x * 10) / 100", 1, TOO_LARGE),
    ("1 / (x * 10)", 1, TOO_LARGE),
    ("1 / x", 3, 0.0),
    ("x / 0.0", 1, ZERO),
    ("x / 0", 1, ZERO),
    ("0 / y", 2, ZERO),
    ("x / y", 2, ZERO),
    ("x / (y - y)", 1, ZERO),
    ("x / k", 2, ZERO),
    ("y / k", 4, NAN),
    ("x / 0.1", 1, TOO_LARGE),
    ("x % 0.0", 1, ZERO),
    ("x % 3", 3, NAN),
    ("f * f", 1, TOO_LARGE),
    ("f * 10", 1, TOO_LARGE),
    ("f * 2", 2, 3.0),
    ("f * 10e0", 1, 3.0000000054977558e39),
    ("1e308 * 10", 1, TOO_LARGE),
    ("(SELECT max(y) FROM n WHERE id = 5) * x", 1, TOO_LARGE),
    ("CASE WHEN y <> 0 THEN x / y ELSE 0 END", 2, 0.0),
    ("x / nullif(y, 0)", 2, None),
    ("CASE WHEN id = 9 THEN 1e308 * x ELSE 5 END", 1, 5.0),
    ("x ^ 2", 1, TOO_LARGE),
    ("power(10, 400)", 1, TOO_LARGE),
    ("10 ^ 400", 1, TOO_LARGE),
    ("power(0, -1)", 1, UNDEFINED),
    ("2 ^ (y * 512)", 1, TOO_LARGE),
    ("y ^ 2", 1, 4.0),
    ("exp(1000)", 1, TOO_LARGE),
    ("exp(x)", 3, INF),
    ("exp(-(x * x))", 1, TOO_LARGE),
    ("exp(y)", 3, 0.0),
    ("ln(y)", 2, TOO_LARGE),
    ("ln(-1)", 1, NONE),
    ("ln(x)", 3, INF),
    ("log(100)", 1, 2.0),
    ("log(0)", 1, TOO_LARGE),
    ("sqrt(y)", 5, 2.0),
    ("acos(2)", 1, NONE),
    ("cosh(1000)", 1, TOO_LARGE),
    ("degrees(x)", 1, TOO_LARGE),
    ("exp(exp(exp(exp(exp(exp(exp(exp(y - 100))))))))", 1, TOO_LARGE),
    ("round(x, 2)", 1, 1e308),  # PostgreSQL rounds NUMERIC only
    ("round(1.005e0, 2)", 1, 1.0),
    ("trunc(y * 1.25, 1)", 1, 2.5),
    ("CAST('1e400' AS DOUBLE)", 1, TOO_LARGE),
    ("DOUBLE '1e400'", 1, TOO_LARGE),
    ("CAST(s AS DOUBLE)", 1, TOO_LARGE),
    ("s::double", 2, -INF),
    ("s::double", 3, 1e39),
    ("CAST(s AS REAL)", 3, TOO_LARGE),
    ("CAST(s AS REAL)", 4, 12.0),
    ("TRY_CAST(s AS DOUBLE)", 1, None),
    ("TRY_CAST(s AS DOUBLE)", 4, 12.0),
    ("CAST(' Infinity ' AS DOUBLE)", 1, INF),
    ("x < '1e400'", 1, TOO_LARGE),
    ("x < '1e300'", 1, False),
    ("f < '1e39'", 1, TOO_LARGE),
    ("x = 'Infinity'", 3, True),
    ("CASE x WHEN 0.0 THEN 'is' ELSE 'is not' END", 4, "is"),
    ("CASE 0.0 WHEN x THEN 'is' ELSE 'is not' END", 4, "is"),
    ("nullif(x, 0.0)", 4, None),
    ("nullif(x, 0)", 1, 1e308),
    ("nullif(f, 0)", 4, None),
    ("x IN (0.0, 1.0, 2.0, 3.0, 4.0)", 4, True),
    ("x NOT IN (0, 1, 2, 3, 4)", 4, False),
    ("x IN (k, 5, 0.0, 7, 8)", 4, True),
    ("x = 0 AND x >= 0.0 AND NOT x < 0", 4, True),
]
WHOLE: dict[str, Any] = {
    "sum(x) FROM n WHERE id = 1": 1e308,
    "sum(x) FROM (SELECT x FROM n WHERE id = 1 UNION ALL SELECT 1e308) AS q": TOO_LARGE,
    "sum(x) FROM (SELECT x FROM n WHERE id IN (1, 3) UNION ALL SELECT 1e308) AS q": INF,
    "sum(x) FROM n WHERE id = 5": None,
    "sum(v) FROM (SELECT x AS v FROM n WHERE id = 3 UNION ALL SELECT y FROM n WHERE id = 3) AS q": NAN,
    "avg(v) FROM (SELECT x AS v FROM n WHERE id = 3 UNION ALL SELECT y FROM n WHERE id = 3) AS q": NAN,
    "sum(f) FROM (SELECT f FROM n WHERE id = 3 UNION ALL SELECT -f FROM n WHERE id = 3) AS q": NAN,
    "avg(f) > 5 FROM (SELECT f FROM n WHERE id = 3 UNION ALL SELECT -f FROM n WHERE id = 3) AS q": True,
    "count(DISTINCT v) FROM (SELECT x - x AS v FROM n WHERE id = 3 UNION ALL SELECT y FROM n WHERE id = 4) AS q": 1,
    "avg(x) FROM (SELECT x FROM n WHERE id = 1 UNION ALL SELECT 1e308) AS q": TOO_LARGE,
    "avg(x) FROM n WHERE id > 2": INF,
    "sum(f) FROM n WHERE id = 1 OR id = 2": 3.0000000054977558e38,  # wider
    "var_pop(x) FROM n WHERE id < 3": TOO_LARGE,
    "stddev_samp(x) FROM n WHERE id < 3": TOO_LARGE,
    "stddev(y) FROM n WHERE id IN (1, 5)": math.sqrt(2),
    "sum(x * 2) FROM n WHERE id = 1": TOO_LARGE,
    "sum(x) OVER (ORDER BY id) FROM (SELECT 1 AS id, 1e308 AS x UNION ALL SELECT 2, 1e308) AS q": TOO_LARGE,
    "sum(x) FILTER (WHERE id = 1) FROM n": 1e308,
    # 0 and -0 are one value, which they were not beside another aggregate
    "count(DISTINCT x) + count(x) FROM (SELECT x FROM n UNION ALL SELECT CAST('0' AS DOUBLE)) AS q": 9,
    "count(DISTINCT f) FILTER (WHERE id > 1) + count(f) FROM (SELECT id, f FROM n UNION ALL SELECT 6, 0) AS q": 8,
    "sum(DISTINCT x) FROM (SELECT x FROM n WHERE id = 1 UNION ALL SELECT 1e308) AS q": 1e308,
    "sum(x) / 0.5 FROM n WHERE id = 1": TOO_LARGE,
    "mean(k) + mean(y) FROM n WHERE id = 1": 4.0,
    # as many columns of a name as DataFusion refuses
    "a + b FROM (SELECT sum(y) AS a, sum(CAST(y AS DOUBLE)) AS b FROM n WHERE id = 1) AS q": 4.0,
    "count(*) FROM (SELECT g, avg(k) FROM n GROUP BY g HAVING avg(CAST(k AS DOUBLE)) > avg(k) - 1) AS q": 2,
    # what other conditions leave out is not computed
    "id FROM n WHERE y <> 0 AND x / y > 1e300 AND id < 3": 1,
    "id FROM n WHERE k <> 0 AND 10 / k > 9": 3,
    "id FROM n WHERE id < 3 AND (k = 0 OR 10 / k > 50)": 2,
    "id FROM n WHERE NOT (k <> 0 AND 10 / k > -1)": 2,
    "id FROM n WHERE CASE WHEN k <> 0 THEN 10 / k > 9 ELSE FALSE END": 3,
    "id FROM n WHERE CASE WHEN k = 0 THEN TRUE ELSE 10 / k < 0 END": 2,
    "id FROM n WHERE id < 3 AND s <> '1e400' AND CAST(s AS DOUBLE) < 0": 2,
    "id FROM (SELECT id, x / y AS r FROM n WHERE y <> 0) AS q WHERE r > 1e300 AND id < 3": 1,
    # in an ORDER BY nothing is told of the value
    "id FROM n WHERE id < 4 ORDER BY 1 / y LIMIT 1": 3,
    "max(r) FROM (SELECT rank() OVER (ORDER BY y * 2, x / 2) AS r FROM n) AS q": 5,
    "count(*) FROM n WHERE id IN (1, 5) GROUP BY y / 2 ORDER BY y / 2 LIMIT 1": 1,
    "sum(k) OVER (PARTITION BY y * 2.5) FROM n WHERE id = 1": 2,
}


@pytest.fixture(scope="module")
def ask() -> Callable[..., Any]:
    ctx = SessionContext(exact_config(SessionConfig().with_target_partitions(2)))
    ctx.from_arrow(ROWS, name="n")
    queries = ExactQueries(ctx)

    def ask(text: str, **values: pa.Scalar) -> Any:
        try:
            batches = queries.plan(text, values, [ROWS.schema]).collect()
        except Exception as exc:  # noqa: BLE001 - DataFusion raises plain Exceptions
            error = exc if isinstance(exc, KalamError) else explain(exc)
            assert error.code == "invalid_value", error
            return error.detail
        [(value,)] = [tuple(row) for batch in batches for row in zip(*batch.to_pydict().values(), strict=True)]
        return value

    return ask


def check(found: Any, right: Any) -> None:
    if right in WRONG:
        assert right in found
    elif isinstance(right, float) and math.isnan(right):
        assert math.isnan(found)
        assert math.copysign(1.0, found) == 1.0  # one with a sign is another number to DataFusion, and the least
    else:
        assert found == right
        assert type(found) is type(right)


@pytest.mark.parametrize(("expression", "row", "right"), VALUES)
def test_an_expression_has_postgresqls_value_or_error(
    ask: Callable[..., Any], expression: str, row: int, right: Any
) -> None:
    check(ask(f"SELECT {expression} FROM n WHERE id = {row}"), right)


@pytest.mark.parametrize("query", WHOLE)
def test_a_query_has_its_value_or_error(ask: Callable[..., Any], query: str) -> None:
    check(ask(f"SELECT {query}"), WHOLE[query])


def test_parameters_take_part(ask: Callable[..., Any]) -> None:
    check(ask("SELECT x * $1 FROM n WHERE id = 1", **{"1": pa.scalar(10.0)}), TOO_LARGE)
    check(ask("SELECT x / $1 FROM n WHERE id = 1", **{"1": pa.scalar(0.0)}), ZERO)
    check(ask("SELECT id FROM n WHERE x < $1 AND id = 1", **{"1": pa.scalar("1e400")}), TOO_LARGE)
    check(ask("SELECT id FROM n WHERE x = $1 AND id = 3", **{"1": pa.scalar("Infinity")}), 3)


def test_the_text_grows_with_its_operators_and_not_with_their_depth(ask: Callable[..., Any]) -> None:
    nested = "y"
    for _ in range(12):
        nested = f"greatest({nested} * 1.5, y / 2.5)"
    assert math.isfinite(ask(f"SELECT {nested} FROM n WHERE id = 1"))
    long = " + ".join(f"y * {number}.5" for number in range(200))
    assert ask(f"SELECT {long} FROM n WHERE id = 1") == sum(2.0 * (number + 0.5) for number in range(200))
