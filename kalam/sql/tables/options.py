"""The options of a table: which there are, and what their values may be.

Each is one entry of `OPTIONS`: the kinds of table that have it, what is allowed in words, and how a raw value is read
into fields of StreamOptions or StoredOptions (None where it is not allowed), how it is shown and how it is written.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from kalam.errors import InvalidOption, Unsupported
from kalam.foreign import Invalid, Payload
from kalam.names import numbered
from kalam.schema import (
    STORED_KINDS,
    Column,
    Compression,
    PayloadFormat,
    SelectOptions,
    StoredOptions,
    StreamOptions,
    StreamStorage,
    TableKind,
    TableOptions,
    ViewOptions,
    options_type,
)
from kalam.sql.tables.durations import duration_text, seconds
from kalam.sql.text.cursor import did_you_mean
from kalam.sql.text.literals import quoted
from kalam.table_options import Maintain, OnRecreate

MAX_BUFFER_ROWS = 100_000_000
FLUSH_ROWS_MAX = 10_000_000
FLUSH_INTERVAL_S_MAX = 86_400
RETENTION_DAYS_MAX = 36_500
REPLICAS = (1, 3, 5)

_RETENTION_S_MAX = RETENTION_DAYS_MAX * 86_400
_STREAM = frozenset({TableKind.STREAM})
_STORED = frozenset(STORED_KINDS)
_FOREIGN = frozenset({TableKind.FOREIGN})
_VIEW = frozenset({TableKind.VIEW})
OF_STORED_ROWS = frozenset({"FLUSH_POLICY", "LOCATION", "DELETED_RETENTION", "COMPRESSION", "ICEBERG"})
"""Options that a view in memory does not have."""
_REFRESH = re.compile(r"([0-9]{1,7})(ms|s|m|h)?")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_REFRESH_MS_MAX = 3_600_000
_POLICY = re.compile(
    r"rows\s*:\s*([0-9]{1,9})(?:\s*,\s*interval\s*:\s*([0-9]{1,9}))?|interval\s*:\s*([0-9]{1,9})", re.ASCII
)
_VARIABLE = re.compile(r"\$\{[^}]*\}?")
_USER_ID = "${user_id}"
_ALIASES = {"TTL_SECONDS": "RETENTION"}

Fields = dict[str, Any]


class Option(msgspec.Struct, frozen=True):
    """One option: ``read`` gives the fields that a raw value means, None where it is not ``allowed``.

    ``shown`` is its value as DESCRIBE has it, ``written`` as SQL that ``read`` understands; None where it is not set.
    """

    kinds: frozenset[TableKind]
    allowed: str
    read: Callable[[Any], Fields | None]
    shown: Callable[[Any], str]
    written: Callable[[Any], str | None]


def options_of(options: TableOptions) -> list[tuple[str, Option]]:
    """The options that a table with these has, by name."""
    if isinstance(options, SelectOptions):
        return []
    if isinstance(options, ViewOptions):
        kinds = _VIEW
    elif isinstance(options, StoredOptions):
        kinds = _STORED - _VIEW
    else:
        kinds = _STREAM if isinstance(options, StreamOptions) else _FOREIGN
    unkept = isinstance(options, ViewOptions) and options.ephemeral
    return [
        (name, option)
        for name, option in OPTIONS.items()
        if option.kinds & kinds and not (unkept and name in OF_STORED_ROWS)
    ]


def table_options(
    kind: TableKind,
    raw: Mapping[str, Any],
    columns: Sequence[Column],
    *,
    current: TableOptions | None = None,
) -> TableOptions:
    """The options of a table, checked.

    ``raw`` holds the values by option name, as a statement gives them; ``columns`` are the table's, for SUBJECT_KEY.
    ``current`` is given for an ALTER TABLE … SET: what ``raw`` does not name stays so. Raises InvalidOption that names
    the option and what is allowed, Unsupported for what an ALTER cannot change.
    """
    named = _named(kind, raw)
    fields: Fields = {}
    for name, value in named.items():
        fields |= _read(kind, name, value, columns)
    if current is not None:
        if "storage" in fields:
            raise Unsupported("STORAGE of a STREAM table cannot be altered; create a new table")
        return replace(current, **fields)
    if fields.get("ephemeral"):
        fields.setdefault("storage", StreamStorage.MEMORY)
    return options_type(kind)(**fields)


def view_options(
    raw: Mapping[str, Any], columns: Sequence[Column], *, current: ViewOptions | None = None, ephemeral: bool = False
) -> ViewOptions:
    """The same for a materialized view, whose result has these columns; ``ephemeral`` as it is created."""
    if ephemeral or (current is not None and current.ephemeral):
        for name in raw:
            if name.upper() in OF_STORED_ROWS:
                raise InvalidOption(f"{name.upper()} is for rows that are stored; an EPHEMERAL view lives in memory")
    options = table_options(TableKind.VIEW, raw, columns, current=current)
    assert isinstance(options, ViewOptions)
    return replace(options, ephemeral=True) if ephemeral else options


def _named(kind: TableKind, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The raw values under the options' own names, each known and of this kind."""
    named: dict[str, Any] = {}
    for given, value in raw.items():
        name = _ALIASES.get(given.upper(), given.upper())
        _check_known(kind, name)
        if name in named:
            alias = next((f" (also spelt {alias})" for alias, option in _ALIASES.items() if option == name), "")
            raise InvalidOption(f"the option {name}{alias} is given twice")
        named[name] = value
    return named


_CALLED = {TableKind.FOREIGN: "STREAM table OVER others' messages", TableKind.VIEW: "materialized view"}


def _check_known(kind: TableKind, name: str) -> None:
    option = OPTIONS.get(name)
    if option is not None and kind in option.kinds:
        return
    own = [known for known, other in OPTIONS.items() if kind in other.kinds]
    called = _CALLED.get(kind, f"{kind} table")
    allowed = f"a {called} has the options {', '.join(own)}"
    if kind is TableKind.FOREIGN and option is not None and option.kinds & _STREAM:
        raise Unsupported(f"{name} is an option of a stream of Kalam's own; {allowed}")
    if option is None:
        raise InvalidOption(f"there is no option {name[:80]}; {allowed}", hint=did_you_mean(name, [*own, *_ALIASES]))
    kinds = " and ".join(sorted(option.kinds - _VIEW)) or "materialized views, and not to"
    raise InvalidOption(f"the option {name} belongs to {kinds} tables; {allowed}")


def _read(kind: TableKind, name: str, value: Any, columns: Sequence[Column]) -> Fields:
    option = OPTIONS[name]
    fields = option.read(value)
    if fields is None or (name == "LOCATION" and not _location_fits(kind, fields["location"])):
        raise InvalidOption(f"{name} = {_shown(value)} is not allowed; {name} is {option.allowed}")
    for given in _named_columns(name, fields):
        known = [column.name for column in columns]
        if given not in known:
            hint = did_you_mean(str(given), known)
            raise InvalidOption(f"{name} = {_shown(value)} names no column of the table", hint=hint)
    return fields


def _named_columns(name: str, fields: Fields) -> Sequence[str]:
    """The columns that the value of an option names."""
    match name:
        case "SUBJECT_KEY":
            return (fields["subject_key"],)
        case "KEY":
            return tuple(fields["key"])
        case "RETENTION_ON":
            return (fields["retention_on"],)
        case _:
            return ()


def _location_fits(kind: TableKind, location: str) -> bool:
    variables = _VARIABLE.findall(location)
    return set(variables) == {_USER_ID} if kind is TableKind.USER else not variables


def _shown(value: Any) -> str:
    return repr(value)[:80] if isinstance(value, str) else str(value)[:80]


def _whole(value: Any) -> int | None:
    """A whole number, also as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _retention(value: Any) -> Fields | None:
    span_s = seconds(value)
    return {"retention_s": span_s} if span_s is not None and 1 <= span_s <= _RETENTION_S_MAX else None


def _refresh(value: Any) -> Fields | None:
    match = _REFRESH.fullmatch(str(value)) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    if match is None or (match[2] is None and match[1] != "0"):
        return None
    span_ms = int(match[1]) * _MILLISECONDS[match[2] or "ms"]
    return {"refresh_ms": span_ms} if span_ms <= _REFRESH_MS_MAX else None


def _refresh_text(span_ms: int) -> str:
    if not span_ms:
        return "0"
    return duration_text(span_ms // 1_000, "hms") if span_ms % 1_000 == 0 else f"{span_ms}ms"


def _key(value: Any) -> Fields | None:
    names = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else ()
    fits = bool(names) and all(names) and len(set(names)) == len(names)
    return {"key": names} if fits else None


def _retention_on(value: Any) -> Fields | None:
    return {"retention_on": value} if isinstance(value, str) else None


def _max_buffer(value: Any) -> Fields | None:
    rows = _whole(value)
    return {"max_buffer_rows": rows} if rows is not None and 1 <= rows <= MAX_BUFFER_ROWS else None


def _flag(field: str) -> Callable[[Any], Fields | None]:
    def read(value: Any) -> Fields | None:
        flag = {"true": True, "false": False}.get(str(value).lower()) if isinstance(value, (bool, str)) else None
        return None if flag is None else {field: flag}

    return read


def _subject_key(value: Any) -> Fields | None:
    return {"subject_key": value} if isinstance(value, str) else None


def _replicas(value: Any) -> Fields | None:
    count = _whole(value)
    return {"replicas": count} if count in REPLICAS else None


def _choice(field: str, choices: type[enum.StrEnum]) -> Callable[[Any], Fields | None]:
    by_text = {choice.value: choice for choice in choices}

    def read(value: Any) -> Fields | None:
        choice = by_text.get(value.lower()) if isinstance(value, str) else None
        return {field: choice} if choice is not None else None

    return read


def _flush_policy(value: Any) -> Fields | None:
    match = _POLICY.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        return None
    rows, interval_s = match[1], match[2] or match[3]
    within = (rows is None or 0 < int(rows) <= FLUSH_ROWS_MAX) and (
        interval_s is None or 0 < int(interval_s) <= FLUSH_INTERVAL_S_MAX
    )
    policy = {"flush_rows": rows and int(rows), "flush_interval_s": interval_s and int(interval_s)}
    return policy if within else None


def _location(value: Any) -> Fields | None:
    return {"location": value} if isinstance(value, str) and value.strip() and value.isprintable() else None


def _deleted_retention(value: Any) -> Fields | None:
    if isinstance(value, str) and value.lower() == "off":
        return {"deleted_retention_s": None}
    hours = str(value).isascii() and str(value).isdigit()
    span_s = seconds(f"{value}h" if hours else value, units="hd")
    return {"deleted_retention_s": span_s} if span_s is not None and 1 <= span_s <= _RETENTION_S_MAX else None


def _listed(choices: type[enum.StrEnum]) -> str:
    return " or ".join(f"'{choice}'" for choice in choices)


def _policy(options: Any) -> str:
    parts = {"rows": options.flush_rows, "interval": options.flush_interval_s}
    return ",".join(f"{what}:{bound}" for what, bound in parts.items() if bound is not None)


def _flag_option(kinds: frozenset[TableKind], field: str) -> Option:
    def shown(options: Any) -> str:
        return "true" if getattr(options, field) else "false"

    return Option(kinds, "true or false", _flag(field), shown, shown)


def _choice_option(kinds: frozenset[TableKind], field: str, choices: type[enum.StrEnum]) -> Option:
    def shown(options: Any) -> str:
        return str(getattr(options, field).value)

    return Option(kinds, _listed(choices), _choice(field, choices), shown, lambda options: quoted(shown(options)))


OPTIONS: dict[str, Option] = {
    "RETENTION": Option(
        _STREAM | _VIEW,
        f"a time such as '10s', '5m', '1h' or '7d', or a number of seconds, from 1 s to {RETENTION_DAYS_MAX} days",
        _retention,
        lambda own: "none" if own.retention_s is None else numbered(own.retention_s, "second"),
        lambda own: None if own.retention_s is None else quoted(duration_text(own.retention_s)),
    ),
    "RETENTION_ON": Option(
        _VIEW,
        "the name of a TIMESTAMP column of the result",
        _retention_on,
        lambda own: own.retention_on or "none",
        lambda own: None if own.retention_on is None else quoted(own.retention_on),
    ),
    "REFRESH": Option(
        _VIEW,
        "'0' (with every commit), or a time such as '250ms', '5s' or '1h', at most an hour",
        _refresh,
        lambda own: _refresh_text(own.refresh_ms),
        lambda own: quoted(_refresh_text(own.refresh_ms)),
    ),
    "MAINTAIN": _choice_option(_VIEW, "maintain", Maintain),
    "KEY": Option(
        _VIEW,
        "columns of the result whose values are unique, such as 'a' or 'a, b'",
        _key,
        lambda own: ", ".join(own.key) or "none",
        lambda own: quoted(", ".join(own.key)) if own.key else None,
    ),
    "ON_RECREATE": _choice_option(_VIEW, "on_recreate", OnRecreate),
    "MAX_BUFFER": Option(
        _STREAM,
        f"a number of rows, 1 to {MAX_BUFFER_ROWS:,}",
        _max_buffer,
        lambda own: numbered(own.max_buffer_rows, "row"),
        lambda own: str(own.max_buffer_rows),
    ),
    "EPHEMERAL": _flag_option(_STREAM, "ephemeral"),
    "FLUSH_POLICY": Option(
        _STORED,
        "'rows:N', 'interval:S' or 'rows:N,interval:S', "
        f"with N from 1 to {FLUSH_ROWS_MAX:,} and S from 1 to {FLUSH_INTERVAL_S_MAX:,} seconds",
        _flush_policy,
        _policy,
        lambda own: quoted(_policy(own)),
    ),
    "LOCATION": Option(
        _STORED,
        f"a folder or URL as text; a USER table's holds {_USER_ID}, a SHARED table's holds no variable",
        _location,
        lambda own: own.location or "default",
        lambda own: None if own.location is None else quoted(own.location),
    ),
    "DELETED_RETENTION": Option(
        _STORED,
        "a time such as '7d' or '48h', a number of hours, or 'off'",
        _deleted_retention,
        lambda own: "off" if own.deleted_retention_s is None else f"{own.deleted_retention_s} seconds",
        lambda own: quoted("off" if own.deleted_retention_s is None else duration_text(own.deleted_retention_s, "dh")),
    ),
    "COMPRESSION": _choice_option(_STORED, "compression", Compression),
    "SUBJECT_KEY": Option(
        _STREAM | _STORED,
        "the name of a column",
        _subject_key,
        lambda own: own.subject_key or "none",
        lambda own: None if own.subject_key is None else quoted(own.subject_key),
    ),
    "STORAGE": _choice_option(_STREAM, "storage", StreamStorage),
    "REPLICAS": Option(_STREAM, "1, 3 or 5", _replicas, lambda own: str(own.replicas), lambda own: str(own.replicas)),
    "FORMAT": _choice_option(_STREAM | _STORED, "format", PayloadFormat),
    "BIGINT_AS_TEXT": _flag_option(_STREAM | _STORED, "bigint_as_text"),
    "PAYLOAD": _choice_option(_FOREIGN, "payload", Payload),
    "INVALID": _choice_option(_FOREIGN, "invalid", Invalid),
    "ICEBERG": Option(
        _STORED,
        "true or false",
        _flag("iceberg"),
        lambda own: "default" if own.iceberg is None else str(own.iceberg).lower(),
        lambda own: None if own.iceberg is None else str(own.iceberg).lower(),
    ),
}
"""Every option, in the order in which they are shown."""
