"""What the rows of a source bring to their groups, added up by the engine that reads them.

Law: what is gathered, and the rest, come to what ``GroupTable.take`` of the same rows comes to, exactly. Whole numbers
are added up in two halves, whose sums of 2^31 rows stay within 64 bits. A DOUBLE is cut into whole numbers of smaller
and smaller units, each by adding and taking away a number so large that what is finer is rounded off: all of these
steps are exact, and so are sums of few enough of them. Distinct values come with how often they are there.

There are two ways with floats. The plain one takes them for what they mostly are, finite, neither very large nor very
fine, and asks for ``checks`` beside, by which ``is_exact`` tells whether they were. The ``careful`` one takes any: what
is left of a number, and what is not cut, a NaN, an infinity, a number that is too large, is the ``rest``, which is
handed over one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from kalam.views.groups.calls import KeptCall
from kalam.views.groups.sums import UNITS
from kalam.views.shape.classified import ROWS, AggregateKind

_SUM_DIGITS: Final = 28
"""Digits of a DECIMAL of which 10^10 can be added up in 38."""
_HALF: Final = 32
TIMES: Final = "_times"
"""The column that says how often a distinct value is there."""
ROWS_MAX: Final = 1 << 20
"""Values of a group of which the plain sums of DOUBLEs are whole numbers of at most 53 bits."""
PLAIN_UNITS: Final = (-8, -42, -76)
"""The powers of two of which these are whole numbers: of a number from 2^-23 on nothing is left."""
_TOP: Final = 2.0**43
"""What a DOUBLE has to be below, to be 2^31 of the largest unit of ``UNITS`` at most; and what is added up plainly."""
_MOST: Final = sys.float_info.max


class Gathering:
    """The texts for these aggregates, over the rows text's rows by so many keys; ``careful`` ones take any floats."""

    def __init__(self, keys: int, calls: Sequence[KeptCall], *, careful: bool = False) -> None:
        self._keys = [f'"_k{number}"' for number in range(keys)]
        self._calls = [_Call.of(number, call, careful=careful) for number, call in enumerate(calls)]
        self._checks = [
            (f"_c{number}_{place}", text, most)
            for number, call in enumerate(self._calls)
            for place, (text, most) in enumerate(call.checks)
        ]
        self.distinct = [number for number, call in enumerate(calls) if call.kind is AggregateKind.COUNT_DISTINCT]

    def is_exact(self, gathered: pa.Table) -> bool:
        """Whether what the groups text gave is certain to be exact; else the careful one has to be asked."""
        # NaN is at most nothing.
        return all((np.asarray(gathered[name].fill_null(0)) <= most).all() for name, _, most in self._checks)

    def groups_text(self) -> str:
        """One row a group: keys, ``_n`` rows, ``_g0_0`` … of each aggregate, ``_r0`` … the rows of its rest, checks."""
        listed = [*self._keys, 'count(*) AS "_n"']
        for number, call in enumerate(self._calls):
            listed += [f'{text} AS "_g{number}_{place}"' for place, text in enumerate(call.gathered)]
            if call.rest is not None:
                listed.append(f'count(*) FILTER (WHERE {call.rest}) AS "_r{number}"')
        listed += [f'{text} AS "{name}"' for name, text, _ in self._checks]
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
            source = f"(SELECT *, {', '.join(dict.fromkeys(steps))} FROM {source})"  # noqa: S608 - of numbers and our own names
        return f"SELECT {', '.join(listed)} FROM {source}"  # noqa: S608 - likewise


class _Call(msgspec.Struct, frozen=True):
    """What is asked for one aggregate.

    ``gathered`` are aggregates over the rows with what ``steps`` compute, of which each uses the ones before. They are
    exact where each of the ``checks``, aggregates too, is at most so much. ``rest`` is the condition of a row of which
    something is ``left`` to be added; None where that never is.
    """

    gathered: tuple[str, ...]
    rest: str | None = None
    left: str = ""
    steps: tuple[str, ...] = ()
    checks: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, number: int, call: KeptCall, *, careful: bool) -> _Call:
        number = number if call.column is None else call.column
        value = f'"_a{number}"'
        match call.kind:
            case AggregateKind.COUNT_DISTINCT:
                return cls(())
            case AggregateKind.ALL | AggregateKind.ANY:
                return cls((f"count(*) FILTER (WHERE NOT {value})", f"count(*) FILTER (WHERE {value})"))
            case AggregateKind.MIN | AggregateKind.MAX:
                return _extreme(value, call, careful=careful)
            case AggregateKind.SUM | AggregateKind.AVG:
                return _sum(number, value, call, careful=careful)
        return cls(("count(*)" if call.argument is None else f"count({value})",))


def _extreme(value: str, call: KeptCall, *, careful: bool) -> _Call:
    """Of floats only the finite ones: DataFusion has its own order of NaN, and begins with the largest finite one."""
    name, counted = call.kind.value, f"count({value})"
    if not pa.types.is_floating(call.argument):
        return _Call((counted, f"{name}({value})"))
    if not careful:
        return _Call((counted, f"{name}({value})"), checks=((_size(value), _MOST),))
    finite = f"abs({value}) < {_double(float('inf'))}"
    return _Call((counted, f"{name}(CASE WHEN {finite} THEN {value} END)"), f"NOT ({finite})", value)


def _sum(number: int, value: str, call: KeptCall, *, careful: bool) -> _Call:
    kind, counted = call.argument, f"count({value})"
    assert kind is not None
    if pa.types.is_floating(kind):
        return _careful_sum(number, value) if careful else _plain_sum(number, value)
    if not pa.types.is_decimal(kind):
        if kind.bit_width <= _HALF:
            return _Call((counted, f"sum(CAST({value} AS BIGINT))", "CAST(0 AS BIGINT)"))
        return _Call((counted, f"sum({value} & {(1 << _HALF) - 1})", f"sum({value} >> {_HALF})"))
    if kind.precision > _SUM_DIGITS:
        return _Call((counted,), f"{value} IS NOT NULL", value)
    return _Call((counted, f"sum({value})"))


def _plain_sum(number: int, value: str) -> _Call:
    """The sums of the parts of floats, which are added to one another.

    The sum of what they are without their signs is above each of them, and NaN where one is.
    """
    cut = _Cut.of(number, _wide(value), PLAIN_UNITS)
    counted = f"count({value})"
    checks = ((counted, ROWS_MAX), (_size(value), _TOP), (_size(cut.left), 0.0))
    return _Call((counted, *(f"sum({part})" for part in cut.parts)), steps=cut.steps, checks=checks)


def _careful_sum(number: int, value: str) -> _Call:
    """How many of each of ``UNITS`` there are."""
    wide = _wide(value)
    within = f"abs({wide}) < {_double(_TOP)}"  # NaN is above every number to DataFusion
    cut = _Cut.of(number, f"CASE WHEN {within} THEN {wide} ELSE {_double(0.0)} END", UNITS)
    whole = [f"{part} * {_double(2.0**-power)}" for part, power in zip(cut.parts, UNITS, strict=True)]
    left = f"CASE WHEN {within} THEN {cut.left} ELSE {wide} END"
    sums = [f"sum(CAST({text} AS BIGINT))" for text in whole]
    return _Call((f"count({value})", *sums), f"abs({left}) > {_double(0.0)}", left, cut.steps)


class _Cut(msgspec.Struct, frozen=True):
    """A DOUBLE as ``parts`` that are whole numbers of these powers of two, and what is ``left``, after these steps."""

    parts: list[str]
    left: str
    steps: tuple[str, ...]

    @classmethod
    def of(cls, number: int, value: str, powers: Sequence[int]) -> _Cut:
        parts = [f'"_h{number}_{place}"' for place in range(len(powers))]
        uncut = [f'"_x{number}_{place}"' for place in range(len(powers) + 1)]
        steps = [f"{value} AS {uncut[0]}"]
        for place, power in enumerate(powers):
            large = _double(1.5 * 2.0 ** (52 + power))
            rounded = f"(({uncut[place]} + {large}) - {large})"
            steps.append(f"{rounded} AS {parts[place]}, {uncut[place]} - {rounded} AS {uncut[place + 1]}")
        return cls(parts, uncut[-1], tuple(steps))


def _wide(value: str) -> str:
    return f"CAST({value} AS DOUBLE)"


def _size(value: str) -> str:
    """What numbers without their signs come to: NaN or infinite where one of them is."""
    return f"sum(abs({_wide(value)}))"


def _double(number: float) -> str:
    return f"CAST('{number!r}' AS DOUBLE)"
