"""The results of a query as text: a table for people; JSON, NDJSON and CSV for programs.

``json`` is the server's answer byte by byte. The other formats are made from it without a detour over floating point:
integers of any size survive. The table is our own, because rich lays out every cell anew and takes half a minute for a
result of 100,000 rows; it also tells NULL from the text ``NULL``, and shows control characters instead of obeying them.
"""

from __future__ import annotations

import enum
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final, TextIO

from kalam.cli.telling import is_styled
from kalam.cli.words import counted

NUMBER_TYPES: Final = ("SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL")
CUT_CHARS_MIN: Final = 8
"""What a column is cut to at least; where that is too much, a table is shown a line a column."""
RULE_CHARS_MAX: Final = 72
PLAN_COLUMNS: Final = ["plan_type", "plan"]
DIM, BOLD, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_STYLE: Final = re.compile("\x1b\\[[0-9]*m")


class Format(enum.StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


def write_results(results: list[dict[str, Any]], form: Format, out: TextIO) -> None:
    """Write every result that has columns, one after another."""
    table = fitted_lines if form is Format.TABLE and out.isatty() else table_lines
    writer = {Format.TABLE: table, Format.NDJSON: ndjson_lines, Format.CSV: csv_lines}[form]
    separated = form is not Format.NDJSON
    for index, result in enumerate(result for result in results if result["columns"]):
        if index and separated:
            out.write("\n")
        out.writelines(line + "\n" for line in writer(result, styled=is_styled(out), encoding=out.encoding))


def ndjson_lines(result: dict[str, Any], **_: Any) -> Iterator[str]:
    """One JSON object a row. A column name that occurs twice stays twice."""
    names = [_compact(column["name"]) for column in result["columns"]]
    for row in result["rows"]:
        members = (f"{name}:{_compact(value)}" for name, value in zip(names, row, strict=True))
        yield "{" + ",".join(members) + "}"


def csv_lines(result: dict[str, Any], **_: Any) -> Iterator[str]:
    """A header and a line a row (RFC 4180); NULL is an empty field, an empty text is ``""``."""
    yield ",".join(_csv_field(column["name"]) for column in result["columns"])
    for row in result["rows"]:
        yield ",".join("" if value is None else _csv_field(_plain(value)) for value in row)


def table_lines(result: dict[str, Any], *, styled: bool, encoding: str) -> Iterator[str]:
    """A header, a rule and a line a row, or as many as its longest text has: numbers to the right, NULL dimmed."""
    columns = result["columns"]
    header = [_visible(column["name"]).replace("\n", "\\n") for column in columns]
    right = [column["type"].split("(")[0].removesuffix(" UNSIGNED") in NUMBER_TYPES for column in columns]
    rows = [[_cell(value) for value in row] for row in result["rows"]]
    lines = [line for row in rows for line in _lines(row)]
    widths = [max(map(_width, cells)) for cells in zip(header, *lines, strict=True)]
    bold, dim = (BOLD, DIM) if styled else ("", "")
    yield _line(header, widths, right, [bold] * len(columns))
    yield "  ".join(("─" if encoding.lower().replace("-", "") == "utf8" else "-") * width for width in widths)
    for row, cells in zip(result["rows"], rows, strict=True):
        styles = [dim if value is None else "" for value in row]
        for line in _lines(cells):
            yield _line(line, widths, right, styles)


def fitted_lines(result: dict[str, Any], *, styled: bool, encoding: str) -> Iterator[str]:
    """A table that fits the terminal: long texts are cut with ``…``; what has too many columns is shown a line each."""
    room = shutil.get_terminal_size().columns
    columns = result["columns"]
    if [column["name"] for column in columns] == PLAN_COLUMNS:
        yield from plan_lines(result, styled=styled)
        return
    cells = [[_cell(value).replace("\n", "\\n") for value in row] for row in result["rows"]]
    headers = [_visible(column["name"]) for column in columns]
    widths = [max(map(_width, column)) for column in zip(headers, *cells, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= room:
        yield from table_lines(result, styled=styled, encoding=encoding)
        return
    limit = _cut_at(widths, room - 2 * (len(widths) - 1))
    if limit < CUT_CHARS_MIN:
        yield from expanded_lines(result, styled=styled)
        return
    cut = [[_cut(text, limit) for text in row] for row in cells]
    names = [{**column, "name": _cut(name, limit)} for column, name in zip(columns, headers, strict=True)]
    shown = [
        [None if value is None else text for value, text in zip(row, texts, strict=True)]
        for row, texts in zip(result["rows"], cut, strict=True)
    ]
    yield from table_lines({**result, "columns": names, "rows": shown}, styled=styled, encoding=encoding)


def _cut_at(widths: Sequence[int], room: int) -> int:
    """The width to which longer columns are cut, so that all of them together take no more than ``room``."""
    for narrow, width in enumerate(ordered := sorted(widths)):
        if width * (len(ordered) - narrow) >= room:
            return max(room, 0) // (len(ordered) - narrow)
        room -= width
    return ordered[-1]


def _cut(text: str, limit: int) -> str:
    if _width(text) <= limit:
        return text
    while _width(text) >= limit:
        text = text[:-1]
    return f"{text}…"


def expanded_lines(result: dict[str, Any], *, styled: bool, **_: Any) -> Iterator[str]:
    """A line for each column of each row, as psql's expanded display has them."""
    names = [_visible(column["name"]).replace("\n", "\\n") for column in result["columns"]]
    wide = max(map(_width, names), default=0)
    dim = DIM if styled else ""
    for number, row in enumerate(result["rows"], 1):
        yield f"-[ row {number} ]".ljust(min(wide + 20, RULE_CHARS_MAX), "-")
        for name, value in zip(names, row, strict=True):
            first, *rest = _cell(value).split("\n")
            shown = f"{dim}{first}{PLAIN}" if dim and value is None else first
            yield f"{name}{' ' * (wide - _width(name))} | {shown}".rstrip()
            yield from (f"{' ' * wide} | {line}" for line in rest)


def plan_lines(result: dict[str, Any], *, styled: bool) -> Iterator[str]:
    """What an EXPLAIN answers, whole: each plan under its name."""
    bold, plain = (BOLD, PLAIN) if styled else ("", "")
    for name, plan in result["rows"]:
        yield f"{bold}{_visible(name)}{plain}"
        yield from (f"  {line}" for line in _cell(plan).rstrip("\n").split("\n"))


def row_count_line(result: dict[str, Any]) -> str:
    """How many rows there are, as a line under them."""
    return f"({counted(result['row_count'])})"


def width_of(line: str) -> int:
    """The columns that a line takes on a terminal; what styles it takes none."""
    return _width(_STYLE.sub("", line))


def _lines(cells: list[str]) -> list[list[str]]:
    """A row as lines: a text of several lines keeps them."""
    if not any("\n" in cell for cell in cells):
        return [cells]
    return [list(line) for line in zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")]


def _line(cells: list[str], widths: list[int], right: list[bool], styles: Sequence[str]) -> str:
    parts = []
    for cell, width, to_right, style in zip(cells, widths, right, styles, strict=True):
        padding = " " * (width - _width(cell))
        text = f"{style}{cell}{PLAIN}" if style else cell
        parts.append(padding + text if to_right else text + padding)
    return "  ".join(parts).rstrip()


def _cell(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case "NULL":
            return "'NULL'"
        case _:
            return _visible(_plain(value))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _compact(value)


# One encoder for all values: json.dumps would make a new one for each.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _csv_field(text: str) -> str:
    if text and not any(char in text for char in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def machine_stdout() -> TextIO:
    """Stdout for the formats that programs read, which are UTF-8 whatever the locale says."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogatepass")
    return sys.stdout
