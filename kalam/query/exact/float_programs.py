"""Computes what is written with DOUBLEs so that no infinity comes of numbers that are none.

A program is a tree of operators in the order in which they are carried out, as a text: ``$0`` is the first argument,
``#1.8`` a number, ``*d`` a product of DOUBLEs, ``*s`` one of FLOATs. It runs once without a look at each step, and
again with one where the processor says that there was something to look at: a number that became an infinity, a
division by zero, a value that is not defined. An infinity or NaN that is stored takes part as IEEE 754 has it. A NaN
that is made of infinities has no sign: processors give it one, by which DataFusion tells it from others and takes it
for the least number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionContext, udf

from kalam.query.exact.checked import MARK, OutOfRange

Floats = np.ndarray[Any, np.dtype[Any]]

ARGUMENTS_MAX = 16
COMPUTE = "kalam_floats_"
"""And the number of arguments behind the program."""
COMPUTE_IN_PLACE = "kalam_floats_here_"
"""Said to be volatile, so that no condition on it is moved before one that leaves zeros out."""
FAILING = frozenset({"/", "%", "ln", "log", "log10", "sqrt", "asin", "acos", "acosh"})
"""Operators that have no value for some finite numbers."""
BOUNDED = "kalam_bounded_"
BOUNDED_NAMES = (
    *("sum", "avg", "mean", "var", "var_pop", "var_samp", "var_population", "var_sample", "variance", "variance_pop"),
    *("stddev", "stddev_pop", "stddev_samp"),
)
DOUBLE_TEXT, SINGLE_TEXT, OR_NULL = "kalam_double_text", "kalam_single_text", "_or_null"
_ZERO_DIVIDES = frozenset("/%")
_PASSING = ("inf", "infinity")


def _log(base: Floats, value: Floats) -> Floats:
    for known, function in ((2.0, np.log2), (10.0, np.log10)):
        if base.size and (base == known).all():
            return np.asarray(function(value))
    return np.asarray(np.log(value) / np.log(base))


def _round_at(step: Callable[[Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    def compute(value: Floats, digits: Floats) -> Floats:
        by = np.power(10.0, digits)
        moved = value * by
        # So large a number has no digits behind its point.
        return np.where(np.isfinite(moved), step(moved) / by, value).astype(value.dtype)

    return compute


def _away_from_zero(values: Floats) -> Floats:
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


BINARY: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "log": _log,
    "round": _round_at(_away_from_zero),
    "trunc": _round_at(np.trunc),
}
UNARY: dict[str, Callable[[Floats], Floats]] = {
    "neg": np.negative,
    "exp": np.exp,
    "ln": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "degrees": np.degrees,
}


def _checked(operator: str, result: Floats, *operands: Floats) -> Floats:
    """The result; raises OutOfRange where finite operands have no finite one."""
    if operator in _ZERO_DIVIDES:
        wrong = (operands[1] == 0) & ~np.isnan(operands[0])
        if wrong.any():
            raise OutOfRange(f"{MARK}division by zero in {_told(operator, operands, wrong)};")
    finite = np.logical_and.reduce([np.isfinite(operand) for operand in operands])
    wrong = np.isinf(result) & finite
    if wrong.any():
        kind = "DOUBLE" if result.dtype == np.float64 else "FLOAT"
        raise OutOfRange(f"{MARK}{_told(operator, operands, wrong)} is out of range of {kind};")
    wrong = np.isnan(result) & finite
    if wrong.any():
        raise OutOfRange(f"{MARK}{_told(operator, operands, wrong)} has no value;")
    return result


def _told(operator: str, operands: Sequence[Floats], wrong: Floats) -> str:
    shown = [repr(float(operand[wrong][0])) for operand in operands]
    if operator in {"+", "-", "*", "/", "%", "^"}:
        return f" {operator} ".join(shown)
    return f"{operator}({', '.join(shown)})"


def _run(program: Sequence[str], arguments: Sequence[Floats], count: int, *, checked: bool) -> Floats:
    stack: list[Floats] = []
    for step in program:
        if step[0] == "$":
            stack.append(arguments[int(step[1:])])
        elif step[0] == "#":
            stack.append(np.full(count, float(step[1:])))
        else:
            operator, kind = step[:-1], np.float32 if step[-1] == "s" else np.float64
            taken = 1 if operator in UNARY else 2
            operands = [operand.astype(kind, copy=False) for operand in stack[-taken:]]
            function: Callable[..., Floats] = UNARY[operator] if taken == 1 else BINARY[operator]
            result = function(*operands)
            stack[-taken:] = [_checked(operator, result, *operands) if checked else result]
    return stack[0]


def _values(argument: pa.Array) -> Floats:
    return np.frombuffer(argument.buffers()[1], np.float64)[argument.offset : argument.offset + len(argument)]


def _compute(text: pa.Array, *arguments: pa.Array) -> pa.Array:
    """What a program makes of these; NULL of a NULL."""
    if not len(text):
        return pa.array([], pa.float64())
    program = text[0].as_py().split()
    valid = np.ones(len(text), bool)
    for argument in arguments:
        if argument.null_count:
            valid &= argument.is_valid().to_numpy(zero_copy_only=False)
    operands = [_values(argument)[valid] for argument in arguments]
    count = int(valid.sum())
    with np.errstate(over="raise", divide="raise", invalid="raise", under="ignore"):
        try:
            found = _run(program, operands, count, checked=any(step[0] in _ZERO_DIVIDES for step in program))
        except FloatingPointError:
            with np.errstate(all="ignore"):
                found = _run(program, operands, count, checked=True)
    result = np.zeros(len(text))
    result[valid] = found
    result[np.isnan(result)] = np.nan
    return pa.array(result, pa.float64(), mask=None if count == len(text) else ~valid)


def _bounded(name: str) -> Callable[[pa.Array, pa.Array], pa.Array]:
    """Aggregates as they are; beside each is the same one of zeros where its numbers are finite, and of NaN else."""

    def check(values: pa.Array, zeros: pa.Array) -> pa.Array:
        infinite = ~np.isfinite(_values(values))
        if infinite.any():
            wrong = pc.and_(pa.array(infinite), pc.equal(zeros, 0.0))
            if pc.any(wrong).as_py():
                raise OutOfRange(f"{MARK}{name} of finite numbers is out of range of DOUBLE;")
            return pc.if_else(pc.is_nan(values), np.nan, values)
        return values

    return check


_GREATEST = {"DOUBLE": float(np.finfo(np.float64).max), "FLOAT": float(np.finfo(np.float32).max)}


def check_number(text: str, sql_type: str) -> None:
    """Raise OutOfRange for the text of a number that is too large for a type."""
    try:
        value = float(text)
    except ValueError:
        return  # DataFusion says what is wrong with it
    if abs(value) > _GREATEST[sql_type] and text.strip().lstrip("+-").lower() not in _PASSING:
        raise OutOfRange(f"{MARK}{text[:60]!r} is out of range of {sql_type};")


def _text_check(sql_type: str, *, or_null: bool) -> Callable[[pa.Array], pa.Array]:
    """Texts as they are, but for those of numbers that are too large."""

    def check(texts: pa.Array) -> pa.Array:
        past: list[str] = []
        for text in pc.unique(texts.filter(pc.match_substring_regex(texts, "[eE]|[0-9]{38}"))).to_pylist():
            try:
                check_number(text, sql_type)
            except OutOfRange:
                if not or_null:
                    raise
                past.append(text)
        return pc.if_else(pc.is_in(texts, pa.array(past, texts.type)), None, texts) if past else texts

    return check


def register(ctx: SessionContext) -> None:
    """Make the functions known to a context."""
    text, double = pa.string(), pa.float64()
    for count in range(ARGUMENTS_MAX + 1):
        taken = [text, *[double] * count]
        ctx.register_udf(udf(_compute, taken, double, "immutable", name=f"{COMPUTE}{count}"))
        ctx.register_udf(udf(_compute, taken, double, "volatile", name=f"{COMPUTE_IN_PLACE}{count}"))
    for name in BOUNDED_NAMES:
        ctx.register_udf(udf(_bounded(name), [double, double], double, "immutable", name=BOUNDED + name))
    for name, sql_type in ((DOUBLE_TEXT, "DOUBLE"), (SINGLE_TEXT, "FLOAT")):
        for or_null in (False, True):
            check = _text_check(sql_type, or_null=or_null)
            ctx.register_udf(udf(check, [text], text, "immutable", name=name + OR_NULL * or_null))
