"""PostgreSQL's patterns of times (``YYYY-MM-DD HH24:MI``): times written by one, and read.

A pattern is cut into elements once and kept. What is between elements stands for itself when a time is written; when
one is read, blanks and punctuation there match any blanks and punctuation. An element that is known to PostgreSQL and
not offered here is refused, and so is a pattern to read by that tells no year.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.postgresql.kept import kept
from kalam.rows.values import shorten

_MONTH_WORDS = "January February March April May June July August September October November December"
_MONTHS = _MONTH_WORDS.split()
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ELEMENTS = """
    SSSSS SSSS HH24 HH12 MONTH Month month IYYY YYYY Y,YYY A.M. P.M. a.m. p.m. B.C. A.D. b.c. a.d. IDDD DDD DAY Day day
    MON Mon mon YYY IYY TZH TZM FF1 FF2 FF3 FF4 FF5 FF6 HH MI SS MS US MM DD DY Dy dy ID IW WW IY YY CC RM rm OF TZ tz
    AM PM am pm BC AD bc ad D W I Y Q J
"""
_TOKEN = re.compile(
    r'(FM)?(?:"((?:[^"\\]|\\.)*)"|\\(.)|(' + "|".join(map(re.escape, _ELEMENTS.split())) + r")(TH|th)?|(.))", re.DOTALL
)
_NUMBER = re.compile(r"[+-]?\d+")
_BETWEEN = re.compile(r"[^\w]*", re.ASCII)


class _Part(msgspec.Struct, frozen=True):
    """An element, or what stands for itself (``element`` is empty)."""

    element: str
    text: str = ""
    padded: bool = True
    ordinal: str = ""


@kept
def parts_of(pattern: str) -> Sequence[_Part]:
    """The parts of a pattern; raises OutOfRange for one that is not offered."""
    parts: list[_Part] = []
    for match in _TOKEN.finditer(pattern):
        fill, quoted, escaped, element, ordinal, other = match.groups()
        if element:
            parts.append(_Part(element, padded=fill is None, ordinal=ordinal or ""))
        else:
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else escaped or other
            parts.append(_Part("", text))
    return parts


# Written.


def shown(times: pa.Array, patterns: pa.Array) -> pa.Array:
    """Times by their patterns: by one that Arrow can write as well, which is most of them, all at once."""
    [pattern, *others] = pc.unique(patterns).to_pylist() or [None]
    directives = None if pattern is None or others else _directives(pattern)
    if directives is not None:
        whole = pc.floor_temporal(times.cast(pa.timestamp("us")), unit="second").cast(pa.timestamp("s"))
        return pc.strftime(whole, format=directives).cast(pa.string())
    pairs = zip(_datetimes(times), patterns.to_pylist(), strict=True)
    return pa.array(
        [None if time is None or pattern is None else show(time, pattern) for time, pattern in pairs], pa.string()
    )


@kept
def _directives(pattern: str) -> str | None:
    """The pattern as strftime has it; None where it has more than that."""
    written = ""
    for part in parts_of(pattern):
        if not part.element:
            written += part.text.replace("%", "%%")
        elif part.element in _STRFTIME and part.padded and not part.ordinal:
            written += _STRFTIME[part.element]
        else:
            return None
    return written


def _datetimes(times: pa.Array) -> list[datetime | None]:
    try:
        return list(times.cast(pa.timestamp("us", "UTC")).to_pylist())
    except (OverflowError, ValueError):
        raise OutOfRange(f"{MARK}to_char takes the years 1 to 9999;") from None


def show(time: datetime, pattern: str) -> str:
    """One time by a pattern."""
    return "".join(_shown(time, part) for part in parts_of(pattern))


def _shown(time: datetime, part: _Part) -> str:
    if not part.element:
        return part.text
    number = _NUMBERS.get(part.element)
    if number is not None:
        value, width = number[0](time), number[1]
        text = str(value).zfill(width) if part.padded else str(value)
        return text + _ordinal(value, part.ordinal)
    write = _TEXTS.get(part.element) or _TEXTS.get(part.element.upper())
    if write is None:
        raise OutOfRange(f"{MARK}the pattern {part.element} of to_char is not supported;")
    text, width = write(time)
    text = _cased(text, part.element)
    return text.ljust(width) if part.padded else text


def _ordinal(value: int, wanted: str) -> str:
    if not wanted:
        return ""
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return ending.upper() if wanted == "TH" else ending


def _cased(text: str, element: str) -> str:
    letters = element.replace(".", "")
    if letters.isupper():
        return text.upper()
    return text.lower() if letters.islower() else text


def _half(time: datetime) -> str:
    return "PM" if time.hour >= 12 else "AM"


def _fraction(digits: int) -> Callable[[datetime], int]:
    return lambda time: time.microsecond // 10 ** (6 - digits)


def _iso(place: int) -> Callable[[datetime], int]:
    return lambda time: time.isocalendar()[place]


_NUMBERS: dict[str, tuple[Callable[[datetime], int], int]] = {
    "YYYY": (lambda time: time.year, 4),
    "YYY": (lambda time: time.year % 1000, 3),
    "YY": (lambda time: time.year % 100, 2),
    "Y": (lambda time: time.year % 10, 1),
    "IYYY": (_iso(0), 4),
    "IYY": (lambda time: time.isocalendar()[0] % 1000, 3),
    "IY": (lambda time: time.isocalendar()[0] % 100, 2),
    "I": (lambda time: time.isocalendar()[0] % 10, 1),
    "Q": (lambda time: (time.month + 2) // 3, 1),
    "MM": (lambda time: time.month, 2),
    "DD": (lambda time: time.day, 2),
    "DDD": (lambda time: time.timetuple().tm_yday, 3),
    "IDDD": (lambda time: (time.isocalendar()[1] - 1) * 7 + time.isocalendar()[2], 3),
    "D": (lambda time: time.isoweekday() % 7 + 1, 1),
    "ID": (lambda time: time.isoweekday(), 1),
    "W": (lambda time: (time.day - 1) // 7 + 1, 1),
    "WW": (lambda time: (time.timetuple().tm_yday - 1) // 7 + 1, 2),
    "IW": (_iso(1), 2),
    "CC": (lambda time: (time.year + 99) // 100, 2),
    "J": (lambda time: time.toordinal() + 1_721_425, 1),
    "HH24": (lambda time: time.hour, 2),
    "HH12": (lambda time: (time.hour + 11) % 12 + 1, 2),
    "HH": (lambda time: (time.hour + 11) % 12 + 1, 2),
    "MI": (lambda time: time.minute, 2),
    "SS": (lambda time: time.second, 2),
    "MS": (lambda time: time.microsecond // 1000, 3),
    "US": (lambda time: time.microsecond, 6),
    **{f"FF{digits}": (_fraction(digits), digits) for digits in range(1, 7)},
    **dict.fromkeys(("SSSS", "SSSSS"), (lambda time: time.hour * 3600 + time.minute * 60 + time.second, 1)),
}
"""Elements that are numbers, and how many digits they have at least."""
_STRFTIME = {
    "YYYY": "%Y",
    "MM": "%m",
    "DD": "%d",
    "DDD": "%j",
    "IYYY": "%G",
    "IW": "%V",
    "ID": "%u",
    "Mon": "%b",
    "Dy": "%a",
    "HH24": "%H",
    "HH12": "%I",
    "HH": "%I",
    "MI": "%M",
    "SS": "%S",
    "TZ": "UTC",
    "OF": "+00",
}
"""Elements that are the same for strftime, in English."""
_TEXTS: dict[str, Callable[[datetime], tuple[str, int]]] = {
    "MONTH": lambda time: (_MONTHS[time.month - 1], 9),
    "MON": lambda time: (_MONTHS[time.month - 1][:3], 3),
    "DAY": lambda time: (_DAYS[time.weekday()], 9),
    "DY": lambda time: (_DAYS[time.weekday()][:3], 3),
    "RM": lambda time: (_ROMAN[time.month - 1], 4),
    "AM": lambda time: (_half(time), 2),
    "PM": lambda time: (_half(time), 2),
    "A.M.": lambda time: (".".join(_half(time)) + ".", 4),
    "P.M.": lambda time: (".".join(_half(time)) + ".", 4),
    **dict.fromkeys(("BC", "AD"), lambda time: ("AD", 2)),
    **dict.fromkeys(("B.C.", "A.D."), lambda time: ("A.D.", 4)),
    "TZ": lambda time: ("UTC", 3),
    "TZH": lambda time: ("+00", 3),
    "TZM": lambda time: ("00", 2),
    "OF": lambda time: ("+00", 3),
    "Y,YYY": lambda time: (f"{time.year // 1000},{time.year % 1000:03}", 5),
}


# Read.


def times(texts: pa.Array, patterns: pa.Array) -> pa.Array:
    """Texts read by their patterns, in UTC."""
    pairs = zip(texts.to_pylist(), patterns.to_pylist(), strict=True)
    return pa.array(
        [None if text is None or pattern is None else read(text, pattern) for text, pattern in pairs],
        pa.timestamp("us", "UTC"),
    )


def days(texts: pa.Array, patterns: pa.Array) -> pa.Array:
    """The dates of the same."""
    return times(texts, patterns).cast(pa.timestamp("us")).cast(pa.date32(), safe=False)


def since_epoch(seconds: pa.Array) -> pa.Array:
    """Times so many seconds after 1970 began."""
    found = []
    for value in seconds.to_pylist():
        try:
            found.append(None if value is None else _EPOCH + timedelta(microseconds=round(value * 1_000_000)))
        except (OverflowError, ValueError):
            raise OutOfRange(f"{MARK}{value!r} seconds since 1970 are out of range of TIMESTAMP;") from None
    return pa.array(found, pa.timestamp("us", "UTC"))


def read(text: str, pattern: str) -> datetime:
    """The time that a text tells by a pattern; raises OutOfRange."""
    try:
        return _Reading(text).read(parts_of(pattern))
    except (ValueError, OverflowError) as exc:
        if isinstance(exc, OutOfRange):
            raise
        raise OutOfRange(f"{MARK}{shorten(text)} is no time by the pattern {shorten(pattern)}: {exc};") from None


class _Reading:
    """A text that is read from its beginning on."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self._found: dict[str, int] = {}

    def read(self, parts: Sequence[_Part]) -> datetime:
        for place, part in enumerate(parts):
            if not part.element:
                self._pass(part.text)
            elif self._place < len(self._text) and _BETWEEN.fullmatch(self._text, self._place) is None:
                follows = place + 1 < len(parts) and parts[place + 1].element in _WIDTHS
                self._take(part, follows)
        return self._time()

    def _pass(self, text: str) -> None:
        if text.isalnum():
            self._place += len(text)
            return
        match = _BETWEEN.match(self._text, self._place)
        signed = match is not None and match[0][-1:] in ("-", "+") and len(match[0]) > 1
        self._place = self._place if match is None else match.end() - signed

    def _take(self, part: _Part, follows: bool) -> None:
        element = part.element
        blank = re.compile(r"\s*").match(self._text, self._place)
        self._place = self._place if blank is None else blank.end()
        if element in _WIDTHS:
            self._number(element, follows)
        elif element.upper() in ("MONTH", "MON"):
            self._found["MM"] = self._name(_MONTHS, whole=len(element) > 3) + 1
        elif element.upper() in ("DAY", "DY"):
            self._name(_DAYS, whole=len(element) > 2)
        elif element.upper().replace(".", "") in ("AM", "PM"):
            half = self._text[self._place : self._place + len(element)].upper().replace(".", "")
            if half not in ("AM", "PM"):
                raise ValueError("expected AM or PM")
            self._found["PM"] = half == "PM"
            self._place += len(element)
        else:
            raise OutOfRange(f"{MARK}the pattern {element} cannot be read by;")

    def _number(self, element: str, follows: bool) -> None:
        name, width = _WIDTHS[element]
        match = _NUMBER.match(self._text, self._place)
        if match is None:
            raise ValueError(f"expected a number for {element}")
        signed = match[0][0] in "+-"
        bounded = follows or element != "YYYY"
        digits = match[0][: width + signed] if bounded else match[0]
        self._place += len(digits)
        value = int(digits)
        if name == "US":  # a fraction
            value = int(digits.ljust(width, "0")) * 10 ** (6 - width)
        if element == "YY":
            value += 2000 if value < 70 else 1900
        if element == "YYY":
            value += 2000 if value < 520 else 1000
        self._found[name] = value

    def _name(self, names: Sequence[str], *, whole: bool) -> int:
        rest = self._text[self._place :].lower()
        for number, name in enumerate(names):
            wanted = name.lower() if whole else name[:3].lower()
            if rest.startswith(wanted):
                self._place += len(wanted)
                return number
        raise ValueError(f"expected one of {names[0]}, {names[1]}, …")

    def _time(self) -> datetime:
        found = self._found
        if "YYYY" not in found:
            raise ValueError("it tells no year")
        hour = found.get("HH", 0)
        if "PM" in found or "HH12" in found:
            hour = found.get("HH12", hour)
            if not 1 <= hour <= 12:
                raise ValueError(f"hour {hour} of 12")
            hour = hour % 12 + 12 * bool(found.get("PM"))
        day = date(found["YYYY"], found.get("MM", 1), found.get("DD", 1))
        if "DDD" in found:
            day = date(found["YYYY"], 1, 1) + timedelta(days=found["DDD"] - 1)
        seconds = found.get("SSSS")
        time = datetime(day.year, day.month, day.day, tzinfo=UTC)
        if seconds is None:
            time = time.replace(hour=hour, minute=found.get("MI", 0), second=found.get("SS", 0))
        else:
            time += timedelta(seconds=seconds)
        time += timedelta(microseconds=found.get("US", 0))
        return time - timedelta(hours=found.get("TZH", 0), minutes=_minutes(found))


def _minutes(found: dict[str, int]) -> int:
    minutes = found.get("TZM", 0)
    return -minutes if found.get("TZH", 0) < 0 else minutes


_WIDTHS: dict[str, tuple[str, int]] = {
    **{name: ("YYYY", len(name)) for name in ("YYYY", "YYY", "YY")},
    **{name: (name, 2) for name in ("MM", "DD", "MI", "SS", "TZH", "TZM")},
    "HH24": ("HH", 2),
    "HH12": ("HH12", 2),
    "HH": ("HH12", 2),
    "DDD": ("DDD", 3),
    "MS": ("US", 3),
    "US": ("US", 6),
    **{f"FF{digits}": ("US", digits) for digits in range(1, 7)},
    **dict.fromkeys(("SSSS", "SSSSS"), ("SSSS", 5)),
}
"""Elements that are read as numbers: what they tell, and of how many digits."""
