"""What the rows of a source bring to their groups, added up by the engine that reads them.

Law: what is gathered, and the rest, come to what ``GroupTable.take`` of the same rows comes to, exactly. Whole numbers
are added up in two halves, whose sums of 2^31 rows stay within 64 bits. A DOUBLE is cut into whole numbers of 32 bits,
of smaller and smaller units, each by adding and taking away a number so large that what is finer is rounded off: all of
these steps are exact, and so are sums of few enough of them. What is left of it, of most numbers nothing, and what does
not go that way, a NaN, an infinity, a number that is too large, is the ``rest``: it is handed over one by one. Distinct
values come with how often they are there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kalam.views.groups.calls import KeptCall
from kalam.views.groups.sums import UNITS
from kalam.views.shape.classified import ROWS, AggregateKind

_SUM_DIGITS: Final = 28
"""Digits of a DECIMAL of which 10^10 can be added up in 38."""
_HALF: Final = 32
TIMES: Final = "_times"
"""The column that says how often a distinct value is there."""
ROWS_MAX: Final = 1 << 22
"""Rows of a group of which sums of DOUBLEs are whole numbers of at most 53 bits; of more they are added as BIGINTs."""
_TOP: Final = 2.0**43
"""What a DOUBLE has to be below, to be 2^31 of the largest unit at most."""


class Gathering:
    """The texts for these aggregates, over the rows text's rows by so many keys; ``many`` rows may have one of them."""

    def __init__(self, keys: int, calls: Sequence[KeptCall], *, many: bool = False) -> None:
        self._keys = [f'"_k{number}"' for number in range(keys)]
        self._calls = [_Call.of(number, call, many=many) for number, call in enumerate(calls)]
        self._many = many or not any(call.steps for call in self._calls)
        self.distinct = [number for number, call in enumerate(calls) if call.kind is AggregateKind.COUNT_DISTINCT]

    def is_exact(self, gathered: pa.Table) -> bool:
        """Whether what the groups text gave is certain to be exact: no group is too large for it."""
        return self._many or (pc.max(gathered["_n"]).as_py() or 0) <= ROWS_MAX

    def groups_text(self) -> str:
        """One row a group: the keys, ``_n`` rows, ``_g0_0`` … of each aggregate, and ``_r0`` … the rows of its rest."""
        listed = [*self._keys, 'count(*) AS "_n"']
        for number, call in enumerate(self._calls):
            listed += [f'{text} AS "_g{number}_{place}"' for place, text in enumerate(call.gathered)]
            if call.rest is not None:
                listed.append(f'count(*) FILTER (WHERE {call.rest}) AS "_r{number}"')
        text = self._over_rows(listed)
        return f"{text} GROUP BY {', '.join(self._keys)}" if self._keys else text

    def rest_text(self, numbers: Collection[int]) -> str:
        """The keys and the rest of these aggregates, ``_a0`` …, NULL in a row of which nothing is left."""
        tests = {number: self._calls[number] for number in numbers}
        listed = [f'CASE WHEN {call.rest} THEN {call.left} END AS "_a{number}"' for number, call in tests.items()]
        condition = " OR ".join(f"({call.rest})" for call in tests.values())
        return f"{self._over_rows([*self._keys, *listed])} WHERE {condition}"

    def distinct_text(self, number: int) -> str:
        """The keys, the values that an aggregate has in each group, and ``TIMES``."""
        named = ", ".join([*self._keys, f'"_a{number}"'])
        text = f'SELECT {named}, count(*) AS "{TIMES}" FROM {ROWS} WHERE "_a{number}" IS NOT NULL'  # noqa: S608 - ours
        return f"{text} GROUP BY {named}"

    def _over_rows(self, listed: Sequence[str]) -> str:
        source = ROWS
        for steps in zip(*(call.steps for call in self._calls if call.steps), strict=True):
            source = f"(SELECT *, {', '.join(steps)} FROM {source})"  # noqa: S608 - of numbers and our own names
        return f"SELECT {', '.join(listed)} FROM {source}"  # noqa: S608 - likewise


class _Call(msgspec.Struct, frozen=True):
    """What is asked for one aggregate.

    ``gathered`` are aggregates over the rows with what ``steps`` compute, of which each uses the ones before. ``rest``
    is the condition of a row of which something is ``left`` to be added; None where that never is.
    """

    gathered: tuple[str, ...]
    rest: str | None = None
    left: str = ""
    steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, number: int, call: KeptCall, *, many: bool) -> _Call:
        value = f'"_a{number}"'
        match call.kind:
            case AggregateKind.COUNT_DISTINCT:
                return cls(())
            case AggregateKind.ALL | AggregateKind.ANY:
                return cls((f"count(*) FILTER (WHERE NOT {value})", f"count(*) FILTER (WHERE {value})"))
            case AggregateKind.MIN | AggregateKind.MAX:
                return _extreme(value, call)
            case AggregateKind.SUM | AggregateKind.AVG:
                return _sum(number, value, call, many=many)
        return cls(("count(*)" if call.argument is None else f"count({value})",))


def _extreme(value: str, call: KeptCall) -> _Call:
    """Of floats only the finite ones: DataFusion has its own order of NaN, and begins with the largest finite one."""
    name, counted = call.kind.value, f"count({value})"
    if not pa.types.is_floating(call.argument):
        return _Call((counted, f"{name}({value})"))
    finite = f"abs({value}) < {_double(float('inf'))}"
    return _Call((counted, f"{name}(CASE WHEN {finite} THEN {value} END)"), f"NOT ({finite})", value)


def _sum(number: int, value: str, call: KeptCall, *, many: bool) -> _Call:
    kind, counted = call.argument, f"count({value})"
    assert kind is not None
    if pa.types.is_floating(kind):
        return _float_sum(number, value, many=many)
    if not pa.types.is_decimal(kind):
        if kind.bit_width <= _HALF:
            return _Call((counted, f"sum(CAST({value} AS BIGINT))", "sum(CAST(0 AS BIGINT))"))
        return _Call((counted, f"sum({value} & {(1 << _HALF) - 1})", f"sum({value} >> {_HALF})"))
    if kind.precision > _SUM_DIGITS:
        return _Call((counted,), f"{value} IS NOT NULL", value)
    return _Call((counted, f"sum({value})"))


def _float_sum(number: int, value: str, *, many: bool) -> _Call:
    cut = [f'"_h{number}_{place}"' for place in range(len(UNITS))]
    uncut = [f'"_x{number}_{place}"' for place in range(len(UNITS) + 1)]
    wide = f"CAST({value} AS DOUBLE)"
    within = f"abs({wide}) < {_double(_TOP)}"  # NaN is above every number to DataFusion
    steps = [f"CASE WHEN {within} THEN {wide} ELSE {_double(0.0)} END AS {uncut[0]}"]
    for place, power in enumerate(UNITS):
        large = _double(1.5 * 2.0 ** (52 + power))
        rounded = f"(({uncut[place]} + {large}) - {large})"
        steps.append(f"{rounded} AS {cut[place]}, {uncut[place]} - {rounded} AS {uncut[place + 1]}")
    whole = [f"{part} * {_double(2.0**-power)}" for part, power in zip(cut, UNITS, strict=True)]
    sums = [f"sum(CAST({text} AS BIGINT))" for text in whole] if many else [f"sum({part})" for part in cut]
    left = f"CASE WHEN {within} THEN {uncut[-1]} ELSE {wide} END"
    return _Call((f"count({value})", *sums), f"abs({left}) > {_double(0.0)}", left, tuple(steps))


def _double(number: float) -> str:
    return f"CAST('{number!r}' AS DOUBLE)"
