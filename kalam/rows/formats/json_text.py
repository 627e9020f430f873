"""Rows in JSON text that comes in pieces: one array of objects, or one object a line (NDJSON).

A row's bytes are passed on as they are, so no number is rounded on the way. An array is not decoded here: strings and
brackets are enough to see where a row ends, and the typed decoder of the table reads it afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from kalam.rows.formats.batches import BadRow, LongRow, OnBad

BOM = b"\xef\xbb\xbf"
SPACE = b" \t\r\n"
QUOTE = 0x22
OPENING = b"[{"

# An object that holds no other, or a bracket, or a string; group 2 is empty where a string goes on behind what is here.
# The first is there for speed: most rows are flat, and one match takes them whole.
_TOKEN = re.compile(
    rb'(\{[^{}\[\]"]*+(?:"(?:[^"\\]++|\\.)*+"[^{}\[\]"]*+)*+\})|[\[\]{}]|"(?:[^"\\]++|\\.)*+("?)', re.DOTALL
)


class JsonLines:
    """Rows of NDJSON. Blank lines are skipped."""

    def __init__(self, row_bytes_max: int, on_bad: OnBad | None = None) -> None:
        self._row_bytes_max = row_bytes_max
        self._on_bad = on_bad
        self._decoder = msgspec.json.Decoder(msgspec.Raw)
        self._rest = b""
        self._first = True
        self._rows = 0

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """The rows of the lines that end in this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > self._row_bytes_max:
            raise LongRow(self._rows + 1, self._row_bytes_max)
        return list(self._checked(lines))

    def end(self) -> Sequence[bytes]:
        """The row of the last line, which needs no line end."""
        return list(self._checked([self._rest]))

    def _checked(self, lines: Sequence[bytes]) -> Iterator[bytes]:
        for line in lines:
            text = (line.removeprefix(BOM) if self._first else line).strip()
            self._first = False
            if not text:
                continue
            self._rows += 1
            try:
                self._check(text)
            except (BadRow, LongRow) as exc:
                if self._on_bad is None:
                    raise
                self._on_bad(exc.as_value(), text)
            else:
                yield text

    def _check(self, text: bytes) -> None:
        if not text.startswith(b"{"):
            raise BadRow(self._rows, f"is not a JSON object: {text[:40].decode(errors='replace')}")
        if len(text) > self._row_bytes_max:
            raise LongRow(self._rows, self._row_bytes_max)
        try:
            self._decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise BadRow(self._rows, f"is not valid JSON: {exc}") from exc


class JsonArray:
    """Rows of one JSON array of objects. An element that is none goes to ``on_bad``, if there is one."""

    def __init__(self, row_bytes_max: int, on_bad: OnBad | None = None) -> None:
        self._row_bytes_max = row_bytes_max
        self._on_bad = on_bad
        self._elements = msgspec.json.Decoder(list[msgspec.Raw])
        self._in_row = False
        self._text = b""
        self._scanned = 0
        self._begin = 0  # of the row that is open, or of what stands between two
        self._depth = 0
        self._rows = 0
        self._ended = False

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """The rows that end in this piece."""
        if not self._text and not self._rows and not self._depth:
            piece = piece.removeprefix(BOM)
        self._text = self._text[self._begin :] + piece
        self._scanned -= self._begin
        self._begin = 0
        rows = list(self._scan())
        if len(self._text) - self._begin > self._row_bytes_max:
            raise LongRow(self._rows + 1, self._row_bytes_max)
        return rows

    def end(self) -> Sequence[bytes]:
        """Nothing; raises BadRow if the array has not ended, or something stands behind it."""
        if not self._ended:
            raise BadRow(self._rows + 1, "is cut off: the array does not end")
        if self._text[self._begin :].strip(SPACE):
            raise BadRow(self._rows + 1, "stands behind the end of the array")
        return ()

    def _scan(self) -> Iterator[bytes]:
        for token in _TOKEN.finditer(self._text, self._scanned):
            first = self._text[token.start()]
            if first == QUOTE:
                if not token[2]:
                    self._scanned = token.start()
                    return
                if self._depth < 2 and self._on_bad is None:
                    raise BadRow(self._rows + 1, "is a text and not an object")
                continue
            if first in OPENING:
                self._open(token.start())
            if first not in OPENING or token[1]:
                self._depth -= 1
                if self._depth == 1 and self._in_row:
                    self._in_row = False
                    self._rows += 1
                    yield self._text[self._begin : token.end()]
                    self._begin = token.end()
                elif self._depth < 1:
                    self._close(token.start())
        self._scanned = len(self._text)

    def _open(self, place: int) -> None:
        self._depth += 1
        if self._depth > 2:
            return
        between, bracket = self._text[self._begin : place].strip(SPACE), self._text[place : place + 1]
        if self._depth == 1 and (self._ended or between or bracket != b"["):
            raise BadRow(self._rows + 1, "does not stand in an array: the body has to be one JSON array of objects")
        if self._depth == 2:
            if bracket != b"{":
                if self._on_bad is None:
                    raise BadRow(self._rows + 1, "is an array and not an object")
                return
            if between != (b"," if self._rows else b""):
                self._leave_out(between, f"follows upon {_shown(between)!r} and not a comma", row_follows=True)
            self._in_row = True
        self._begin = place if self._depth == 2 else place + 1

    def _close(self, place: int) -> None:
        between = self._text[self._begin : place].strip(SPACE)
        reason = f"is not an object: {_shown(between)!r}"
        if self._depth < 0 or self._text[place] != 0x5D:
            raise BadRow(self._rows + 1, reason)
        if between:
            self._leave_out(between, reason, row_follows=False)
        self._ended = True
        self._begin = place + 1

    def _leave_out(self, between: bytes, reason: str, *, row_follows: bool) -> None:
        """Refuse alone what stands between two rows, with its commas; raises BadRow where that are no elements."""
        if self._on_bad is None:
            raise BadRow(self._rows + 1, reason)
        before, behind = self._rows > 0, row_follows
        try:
            text = b"[%b%b%b]" % (b"null" if before else b"", between, b"null" if behind else b"")
            elements = self._elements.decode(text)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise BadRow(self._rows + 1, reason) from exc
        for element in elements[before : len(elements) - behind]:
            self._rows += 1
            error = BadRow(self._rows, f"is not a JSON object: {_shown(bytes(element))}")
            self._on_bad(error.as_value(), bytes(element))


def _shown(text: bytes) -> str:
    return text[:40].decode(errors="replace")
