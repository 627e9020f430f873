"""PostgreSQL's patterns of numbers (``FM9,990.00``): numbers written by one, as its manual has it for the C locale.

https://www.postgresql.org/docs/15/functions-formatting.html. Offered are ``9 0 . , D G L S MI PR FM`` and texts; what
else PostgreSQL knows is refused by its name. A number that has more digits than the pattern is shown as ``#``.

Law: a pattern is read once, and a number is laid over its digits from the left: ``blanks`` are the digits of the
pattern for which the number has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import msgspec
import pyarrow as pa

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.postgresql.kept import kept

_WORDS = ["EEEE", "FM", "MI", "PL", "PR", "RN", "SG", "SP", "TH", ",", ".", "0", "9", "B", "C", "D", "G", "L", "S", "V"]
_KNOWN = "|".join(re.escape(word) for each in _WORDS for word in sorted({each, each.lower()}, reverse=True))
_TOKEN = re.compile(rf'"((?:[^"\\]|\\.)*)"?|\\(")|({_KNOWN})|(.)', re.DOTALL)
_OFFERED = frozenset({",", ".", "0", "9", "D", "FM", "G", "L", "MI", "PR", "S"})
_EXACT = Context(prec=2_000, rounding=ROUND_HALF_UP)
DIGITS_MAX = 1_000
DOUBLE_DIGITS, FLOAT_DIGITS = 15, 6
"""How many digits of a DOUBLE and of a FLOAT are shown."""


class _Pattern(msgspec.Struct):
    """What a pattern says: its parts (an element, or ``""`` and a text), and what follows of them for the whole."""

    parts: Sequence[tuple[str, str]] = ()
    before: int = 0
    behind: int = 0
    decimal: bool = False
    fill: bool = False
    zeros_from: int | None = None
    zeros_to: int = 0
    sign: str = ""
    """``S`` before the digits, ``s`` behind them, ``MI``, ``PR`` or nothing."""

    def take(self, element: str) -> None:
        """Read on; raises OutOfRange for what PostgreSQL refuses."""
        match element:
            case "9" | "0":
                self._digit(element)
            case "." | "D":
                if self.decimal:
                    raise _refused("has more than one decimal point")
                self.decimal = True
            case "FM":
                self.fill = True
            case "S" | "MI" | "PR":
                if self.sign and not (element == self.sign and element != "S"):
                    raise _refused(f"has {element} beside another sign")
                first = element == "S" and (self.decimal or not self.before)
                self.sign = ("S" if first and not self.decimal else "s") if element == "S" else element

    def _digit(self, element: str) -> None:
        if self.sign == "PR":
            raise _refused(f"has {element} behind PR")
        if element == "0" and self.zeros_from is None and not self.decimal:
            self.zeros_from = self.before
        self.before, self.behind = self.before + (not self.decimal), self.behind + self.decimal
        if self.before + self.behind > DIGITS_MAX:
            raise _refused(f"has more than {DIGITS_MAX:,} digits")
        if element == "0":
            self.zeros_to = self.before + self.behind


def _refused(what: str) -> OutOfRange:
    return OutOfRange(f"{MARK}the pattern of to_char {what};")


@kept
def _read(pattern: str) -> _Pattern:
    found, parts = _Pattern(), []
    for quoted, quote, element, other in _TOKEN.findall(pattern):
        name = element.upper()
        if name and name not in _OFFERED:
            raise _refused(f"has {name}, which is not supported for numbers")
        if name:
            found.take(name)
        parts.append((name, re.sub(r"\\(.)", r"\1", quoted) or quote or other))
    found.parts = parts
    return found


def exact_texts(numbers: pa.Array, patterns: pa.Array) -> pa.Array:
    """Whole numbers and DECIMALs, which come as texts, by patterns."""
    return _shown(numbers, patterns, lambda number, pattern: (_exact(number, pattern.behind), pattern.behind))


def double_texts(numbers: pa.Array, patterns: pa.Array) -> pa.Array:
    """DOUBLEs by patterns."""
    return _shown(numbers, patterns, lambda number, pattern: _binary(number, pattern.behind, DOUBLE_DIGITS))


def float_texts(numbers: pa.Array, patterns: pa.Array) -> pa.Array:
    """FLOATs, which come as DOUBLEs, by patterns."""
    return _shown(numbers, patterns, lambda number, pattern: _binary(number, pattern.behind, FLOAT_DIGITS))


def _shown(numbers: pa.Array, patterns: pa.Array, digits: Callable[[Any, _Pattern], tuple[str, int]]) -> pa.Array:
    shown: list[str | None] = []
    for number, pattern in zip(numbers.to_pylist(), patterns.to_pylist(), strict=True):
        if number is None or pattern is None:
            shown.append(None)
        else:
            read = _read(pattern)
            shown.append(_Laid(read, *digits(number, read)).written())
    return pa.array(shown, pa.string())


def _exact(number: str, behind: int) -> str:
    rounded = _EXACT.quantize(Decimal(number), Decimal(1).scaleb(-behind))
    return f"{rounded or abs(rounded):f}"


def _binary(number: float, behind: int, digits_max: int) -> tuple[str, int]:
    if not math.isfinite(number):
        raise OutOfRange(f"{MARK}to_char shows no {number};")
    behind = max(0, min(behind, digits_max - len(f"{abs(number):.0f}")))
    return f"{number:.{behind}f}", behind


class _Laid:
    """A number laid over a pattern. ``digits`` are its digits with their point, ``at`` is the next of them."""

    def __init__(self, pattern: _Pattern, number: str, behind: int) -> None:
        self.pattern, self.behind = pattern, behind
        self.negative = number.startswith("-")
        digits = number.lstrip("-")
        whole = len(digits.partition(".")[0])
        if whole > pattern.before:
            digits = "#" * pattern.before + "." + "#" * behind
        self.digits, self.blanks = digits, max(0, pattern.before - whole)
        self.at = self.place = 0
        self.begun = self.cut = False
        self.last = self._last_shown() if pattern.fill and pattern.decimal else None
        self.bracketed = pattern.sign == "PR" and (self.negative or not pattern.fill)
        signed = pattern.sign in ("S", "s")
        self.signed = pattern.sign == "MI" or (not self.negative and pattern.fill and not signed)
        self.sign_behind = pattern.sign == "s" or (pattern.sign == "S" and not pattern.before)
        places = pattern.before + behind - 1 + (not self.signed and not self.blanks)
        self.end = places + bool(self.blanks) + pattern.decimal

    def _last_shown(self) -> int | None:
        """The place of the last digit that FM leaves, the point's where there is none behind it."""
        point = self.digits.find(".")
        if point < 0:
            return None
        last = max(point, len(self.digits.rstrip("0")) - 1)
        zeros_to = self.pattern.zeros_to
        if zeros_to > self.blanks:
            last = max(last, min(len(self.digits) - 1, zeros_to - self.blanks))
        return last

    def written(self) -> str:
        """The number as the pattern shows it."""
        written = ""
        for element, text in self.pattern.parts:
            written += self._part(element, text)
            if self.cut:
                break
        return written

    def _part(self, element: str, text: str) -> str:
        match element:
            case "9" | "0" | "." | "D":
                return self._digit(element)
            case "," | "G":
                return "," if self.begun else "" if self.pattern.fill else " "
            case "L":
                return " "
            case "MI":
                return "-" if self.negative else "" if self.pattern.fill else " "
        return text

    def _digit(self, element: str) -> str:
        self.begun = False
        zeros_from = self.pattern.zeros_from
        early = self.place < self.blanks
        zero = early and zeros_from is not None and zeros_from <= self.place
        written = self._sign_before() if not early or (zeros_from == self.place) else ""
        if zero:
            written += "0"
            self.begun = True
        elif early:
            written += "" if self.pattern.fill else " "
        else:
            written += self._next(element)
        return written if self.cut else written + self._sign_after()

    def _sign_before(self) -> str:
        if self.signed or (self._leads() and not self._ends_in_point()):
            return ""
        if self.pattern.sign in ("S", "s"):
            if self.sign_behind:
                return ""
            written = "-" if self.negative else "+"
        elif self.bracketed:
            written = "<" if self.negative else " "
        else:
            written = "-" if self.negative else "" if self.pattern.fill else " "
        self.signed = True
        return written

    def _leads(self) -> bool:
        """Whether a 0 comes that stands alone before the point, and is not shown."""
        return self.pattern.zeros_from is None and self.at == 0 and self.digits[:1] == "0" and self.behind != 0

    def _ends_in_point(self) -> bool:
        return self.last is not None and self.digits[self.last] == "."

    def _next(self, element: str) -> str:
        """The next digit or the point."""
        char, leads = self.digits[self.at : self.at + 1], self._leads()
        written = ""
        if char == ".":
            written = "."
        elif self.last is not None and self.at > self.last and element != "0":
            pass
        elif leads:
            written = " " if not self.pattern.fill else "0" if self._ends_in_point() else ""
        else:
            written = char
            self.begun, self.cut = True, not char  # PostgreSQL ends there as well, whatever follows
        self.at += bool(char)
        return written

    def _sign_after(self) -> str:
        self.place += 1
        end = self.place - 1 if self.last is not None and self.last == self.at else self.end
        if self.place != end:
            return ""
        if self.signed and self.bracketed:
            return ">" if self.negative else " "
        return ("-" if self.negative else "+") if self.pattern.sign in ("S", "s") and self.sign_behind else ""
