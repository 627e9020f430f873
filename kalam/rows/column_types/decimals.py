"""DECIMAL(p,s): a Decimal of the column's scale, which JSON has as text."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

import pyarrow as pa

from kalam.rows.column_types.arrow_kinds import is_number, is_text, refuse_unless
from kalam.rows.column_types.record import ColumnType, PostgreSQLType
from kalam.rows.values import Fix, Values, each
from kalam.schema import DataType, TypeName

DIGITS_MAX: Final = 38
_ADJUSTED_MAX: Final = 400
_CONTEXT: Final = Context(prec=80, rounding=ROUND_HALF_UP)


def _fix(kind: DataType) -> Fix:
    """Rounded half up to the scale, refused beyond the precision."""
    precision, scale = kind.precision or DIGITS_MAX, kind.scale or 0
    quantum = Decimal(1).scaleb(-scale)
    bound = Decimal(10) ** (precision - scale)

    def fix(value: Decimal) -> Decimal:
        if not value.is_finite():
            raise ValueError(value)
        rounded = value.quantize(quantum, context=_CONTEXT)
        if rounded.copy_abs() >= bound:  # abs() would round to the 28 digits of the default context
            raise ValueError(value)
        return rounded

    return lambda values: each(values, fix, f"a {kind}")


def _assigned(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return Decimal(repr(value) if isinstance(value, float) else value)


def _from_arrow(values: pa.ChunkedArray, _: DataType) -> list[Any]:
    refuse_unless(is_number(values.type) or is_text(values.type), "numbers")
    return [None if text is None else Decimal(text) for text in values.cast(pa.string()).to_pylist()]


def _default(value: Any, kind: DataType) -> str:
    if isinstance(value, bool):
        raise TypeError("expected a number")
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError("expected a number") from None
    if not number.is_finite() or abs(number.adjusted()) > _ADJUSTED_MAX:
        raise ValueError("expected a finite number")
    whole, _, fraction = format(number.copy_abs(), "f").partition(".")
    whole, fraction = whole.lstrip("0"), fraction.rstrip("0")
    precision, scale = kind.precision or 0, kind.scale or 0
    if len(whole) > precision - scale or len(fraction) > scale:
        raise ValueError(f"expected at most {precision - scale} digits before the point and {scale} behind it")
    return ("-" if number < 0 else "") + (whole or "0") + (f".{fraction}" if fraction else "")


def _show(values: Values) -> Values:
    return [None if value is None else format(value, "f") for value in values]


def _compared(value: Any, _: DataType) -> str | None:
    """A number with all of its digits."""
    if not isinstance(value, float | Decimal) or not math.isfinite(value):
        return None
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    if abs(exact.adjusted()) > DIGITS_MAX:
        return None
    text = format(exact, "f")
    digits, scale = len(text.replace(".", "").lstrip("-")), len(text.partition(".")[2])
    return f"CAST('{text}' AS DECIMAL({digits},{scale}))" if digits <= DIGITS_MAX else None


DECIMAL = ColumnType(
    name=TypeName.DECIMAL,
    words=("DECIMAL", "NUMERIC", "DEC"),
    postgresql=PostgreSQLType("numeric", 1700),
    is_key=True,
    decoded=lambda kind, how: Decimal,
    fix=_fix,
    assigned=_assigned,
    from_arrow=_from_arrow,
    own_arrow=lambda kind: bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind)),
    arrow=lambda kind: pa.decimal128(kind.precision or DIGITS_MAX, kind.scale or 0),
    stored=Decimal | None,
    default=_default,
    in_json=_show,
    in_msgpack=_show,
    compared=_compared,
)
