"""A query's text in words that DataFusion knows, where PostgreSQL has others for what it can do.

Law: it is read token by token, before anything else sees it, and the user's own text stays, with something written
around operands of it. What depends on types is not done here, but in ``exact``, on the text that comes out.

An operand of a postfix operator (``->``, ``->>``, ``#>``, ``#>>``, ``::``) is a name, a call, a literal or what stands
in brackets, or the operators before it on the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import msgspec

from kalam.query.postgresql.functions import (
    JSON_ITEM,
    JSON_ITEM_TEXT,
    JSON_MEMBER,
    JSON_MEMBER_TEXT,
    JSON_PATH,
    JSON_PATH_TEXT,
    JSON_VALUE,
    UUID_VALUE,
)
from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, Token, read_tokens

_CONCERNED = re.compile(
    r"->|\#>|::|\bCAST\s*\(|\bFETCH\s|\bOFFSET\s|\(\s*ALL\b|\bCOLLATE\s"
    r"|\b(?:CEILING|SIGN|EVERY|VARIANCE|MOD|ENCODE|UUID|JSONB?|TIMESTAMP|TIMESTAMPTZ)\b",
    re.IGNORECASE,
)
_RENAMED = {"CEILING": "ceil", "SIGN": "signum", "EVERY": "bool_and", "VARIANCE": "var_samp"}
_MADE = {"UUID": (UUID_VALUE, "UUID"), "JSON": (JSON_VALUE, "JSON"), "JSONB": (JSON_VALUE, "JSON")}
"""Functions for the types that DataFusion does not know, and what their values are called."""
_STEPS = {"->": (JSON_MEMBER, JSON_ITEM), "->>": (JSON_MEMBER_TEXT, JSON_ITEM_TEXT)}
_PATHS = {"#>": JSON_PATH, "#>>": JSON_PATH_TEXT}
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMPTZ"})
_HEX = re.compile(r"'\\x((?:[0-9A-Fa-f]{2})*)'")
_MINUTE = re.compile(r"'\d{4}-\d\d?-\d\d? +\d\d?:\d\d'")
"""A time without seconds, which DataFusion does not read."""
_BYTES = frozenset({"BYTEA", "BLOB"})
_LITERAL_WORDS = frozenset({"DATE", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL", "UUID", "JSON", "JSONB", "TIME"})
_NO_NAMES_WORDS = """
    SELECT FROM WHERE AND OR NOT ON IN AS BY HAVING WHEN THEN ELSE CASE LIMIT OFFSET BETWEEN LIKE ILIKE IS DISTINCT ALL
    ANY UNION EXCEPT INTERSECT VALUES USING RETURNING SET
"""
_NO_NAMES = frozenset(_NO_NAMES_WORDS.split())
_BY_BYTES = frozenset({'"C"', '"POSIX"', '"default"', "ucs_basic"})
_FLOAT_DIGITS_MAX = 24


def in_datafusion_words(text: str) -> str:
    """The text with other words for what PostgreSQL writes otherwise; raises SyntaxFault where it has no tokens."""
    return _Spelling.of(text).written() if _CONCERNED.search(text) else text


class _Spelling(msgspec.Struct):
    """One text on its way."""

    text: str
    tokens: list[Token]
    edits: Edits
    pairs: dict[int, int]
    """The places of the brackets' partners."""
    chains: dict[int, tuple[int, bool]]
    """Where an operand begins on which operators stand up to this place, and whether the last was a cast."""

    @classmethod
    def of(cls, text: str) -> _Spelling:
        """The work on a text."""
        tokens = list(read_tokens(StatementText(text)))[:-1]
        pairs: dict[int, int] = {}
        opened: list[int] = []
        for place, token in enumerate(tokens):
            if token.kind is Kind.SYMBOL and token.text in "([":
                opened.append(place)
            elif token.kind is Kind.SYMBOL and token.text in ")]" and opened:
                pairs[place] = opened.pop()
                pairs[pairs[place]] = place
        return cls(text, tokens, Edits(text), pairs, {})

    def written(self) -> str:
        """The text as it comes out."""
        place = 0
        while place < len(self.tokens):
            place = max(self._read(place), place + 1)
        return self.edits.whole

    def _read(self, place: int) -> int:
        """Write what begins at a place; the place behind it."""
        word, arrow = self._word(place), self._arrow(place)
        if arrow:
            return self._step(place, arrow)
        if self._symbols(place, "::"):
            return self._cast(place)
        read = _WORDS.get(word)
        if read is not None:
            read(self, place)
        elif word in _RENAMED and self._symbols(place + 1, "("):
            self._replace(place, place + 1, _RENAMED[word])
        return place + 1

    # What stands where.

    def _word(self, place: int) -> str:
        return self.tokens[place].word if 0 <= place < len(self.tokens) else ""

    def _symbols(self, place: int, symbols: str) -> bool:
        """Whether these symbols stand here, side by side."""
        tokens = self.tokens[place : place + len(symbols)]
        if "".join(token.text for token in tokens) != symbols:
            return False
        return all(one.end == two.start for one, two in pairwise(tokens))

    def _arrow(self, place: int) -> str:
        """The operator of JSON that stands here; a lambda's arrow is none."""
        if self.tokens[place].text not in ("-", "#"):
            return ""
        found = next((arrow for arrow in ("->>", "->", "#>>", "#>") if self._symbols(place, arrow)), "")
        key = place + len(found)
        if not found or key >= len(self.tokens) or not self._operand(place):
            return ""
        kind = self.tokens[key].kind
        keyed = kind in (Kind.STRING, Kind.NUMBER, Kind.PARAMETER) or self.tokens[key].text in ("(", "-")
        return found if keyed else ""

    def _operand(self, end: int) -> int | None:
        """Where the operand begins that ends before a place."""
        if end in self.chains:
            return self.chains[end][0]
        start = end - 1
        if start < 0:
            return None
        token = self.tokens[start]
        if token.text in (")", "]") and token.kind is Kind.SYMBOL:
            opened = self.pairs.get(start)
            if opened is None:
                return None
            before = opened - 1
            if token.text == "]":
                return self._operand(opened) if before >= 0 else None
            if self._is_name(before):
                return self._path(before)
            return opened
        if token.kind in (Kind.STRING, Kind.ESCAPE, Kind.NUMBER, Kind.PARAMETER, Kind.DOLLAR):
            return start - (token.kind is Kind.STRING and self._word(start - 1) in _LITERAL_WORDS)
        return self._path(start) if self._is_name(start) else None

    def _is_name(self, place: int) -> bool:
        if place < 0:
            return False
        token = self.tokens[place]
        return token.kind is Kind.QUOTED or (token.kind is Kind.WORD and token.word not in _NO_NAMES)

    def _path(self, last: int) -> int:
        """Where a name begins that ends at a place: ``a.b.c``."""
        while last >= 2 and self.tokens[last - 1].text == "." and self._is_name(last - 2):
            last -= 2
        return last

    def _type_end(self, place: int) -> int:
        """The place behind a type's name."""
        end = place + 1
        if self._word(place) in ("DOUBLE", "CHARACTER") and self._word(end) in ("PRECISION", "VARYING"):
            end += 1
        if self._symbols(end, "(") and end in self.pairs:
            end = self.pairs[end] + 1
        if self._word(end) in ("WITH", "WITHOUT") and self._word(end + 1) == "TIME":
            end += 3
        while self._symbols(end, "[]"):
            end += 2
        return min(end, len(self.tokens))

    # What is written.

    def _span(self, first: int, behind: int) -> tuple[int, int]:
        return self.tokens[first].start, self.tokens[behind - 1].end

    def _replace(self, first: int, behind: int, written: str) -> None:
        self.edits.replace(self._span(first, behind), written)

    def _enclose(self, first: int, behind: int, before: str, after: str) -> None:
        self.edits.enclose(self._span(first, behind), before, after)

    def _step(self, place: int, arrow: str) -> int:
        """``json -> key`` as a call."""
        start, key = self._operand(place), place + len(arrow)
        assert start is not None
        token = self.tokens[key]
        end = self.pairs.get(key, key) + 1 if token.text == "(" else key + 1 + (token.text == "-")
        is_item = token.kind is Kind.NUMBER or token.text == "-"
        function = _PATHS[arrow] if arrow in _PATHS else _STEPS[arrow][is_item]
        self._replace(place, key, ", ")
        self._enclose(start, end, f"{function}(", ")")
        if not arrow.endswith(">>"):
            self._called(start, end, "JSON")
        self.chains[end] = (start, False)
        return end

    def _called(self, first: int, behind: int, name: str) -> None:
        """Say of which type a text is for those who read the result."""
        self._enclose(first, behind, "with_metadata(", f", 'kalam.type', '{name}')")

    def _cast(self, place: int) -> int:
        """``operand::type``."""
        start, end = self._operand(place), self._type_end(place + 2)
        word = self._word(place + 2)
        if start is None or end <= place + 2:
            return place + 2
        again = self.chains.get(place, (0, False))[1]
        self.chains[end] = (start, True)
        literal = _HEX.fullmatch(self.text[slice(*self._span(start, place))])
        if word in _MADE:
            function, name = _MADE[word]
            self._replace(place, end, "")
            self._enclose(start, end, f"{function}(", ")")
            self._called(start, end, name)
        elif word in _BYTES and literal is not None:
            self._replace(start, end, f"X'{literal[1]}'")
        elif again:
            self._enclose(start, place, "(", ")")
        elif word in _TIMES:
            self._to_the_second(place - 1)
        if word == "FLOAT":
            self._float(place + 2, end, self.tokens[start].kind is Kind.PARAMETER)
        return end

    def _float(self, place: int, end: int, is_parameter: bool) -> None:
        """``FLOAT(p)``; PostgreSQL's clients say FLOAT of a parameter and mean DOUBLE."""
        if end - place == 4:
            digits = self.tokens[place + 2].text
            wide = not digits.isdecimal() or int(digits) > _FLOAT_DIGITS_MAX
            self._replace(place, end, "DOUBLE" if wide else "REAL")
        elif is_parameter:
            self._replace(place, end, "DOUBLE")

    def cast_call(self, place: int) -> None:
        """``CAST(x AS type)``."""
        closing = self.pairs.get(place + 1) if self._symbols(place + 1, "(") else None
        if closing is None:
            return
        depth, at = 0, None
        for inner in range(place + 2, closing):
            text = self.tokens[inner].text
            depth += (text in ("(", "[")) - (text in (")", "]"))
            if depth == 0 and self._word(inner) == "AS":
                at = inner
        word = "" if at is None else self._word(at + 1)
        if at is None or self._type_end(at + 1) != closing:
            return
        literal = _HEX.fullmatch(self.text[slice(*self._span(place + 2, at))])
        if word in _MADE:
            function, name = _MADE[word]
            self._replace(place, place + 1, function)
            self._replace(at, closing, "")
            self._called(place, closing + 1, name)
        elif word in _BYTES and literal is not None:
            self._replace(place, closing + 1, f"X'{literal[1]}'")
        elif word in _TIMES and at == place + 3:
            self._to_the_second(place + 2)
        elif word == "FLOAT":
            alone = at == place + 3 and self.tokens[place + 2].kind is Kind.PARAMETER
            self._float(at + 1, closing, alone)

    def _to_the_second(self, place: int) -> None:
        span = self._span(place, place + 1)
        if _MINUTE.fullmatch(self.text[slice(*span)]):
            self.edits.replace(span, f"{self.text[span[0] : span[1] - 1]}:00'")

    def time(self, place: int) -> None:
        """``TIMESTAMP '…'``."""
        if place + 1 < len(self.tokens):
            self._to_the_second(place + 1)

    def typed(self, place: int) -> None:
        """``UUID '…'``."""
        if (
            place + 1 < len(self.tokens)
            and self.tokens[place + 1].kind is Kind.STRING
            and self._word(place - 1) != "AS"
        ):
            function, name = _MADE[self._word(place)]
            self._replace(place, place + 1, "")
            self._enclose(place, place + 2, f"{function}(", ")")
            self._called(place, place + 2, name)
            self.chains[place + 2] = (place, False)

    def fetch(self, place: int) -> None:
        """``FETCH FIRST n ROWS ONLY``."""
        if self._word(place + 1) not in ("FIRST", "NEXT"):
            return
        end = place + 2
        count = "1"
        if self._word(end) not in ("ROW", "ROWS"):
            last = self.pairs.get(end, end)
            count = self.text[slice(*self._span(end, last + 1))]
            end = last + 1
        if self._word(end) in ("ROW", "ROWS") and self._word(end + 1) == "ONLY":
            self._replace(place, end + 2, f"LIMIT {count}")

    def offset(self, place: int) -> None:
        """``OFFSET n ROWS``."""
        end = self.pairs.get(place + 1, place + 1) + 1
        if self._word(end) in ("ROW", "ROWS"):
            self._replace(end, end + 1, "")

    def mod(self, place: int) -> None:
        """``mod(a, b)``."""
        closing = self.pairs.get(place + 1) if self._symbols(place + 1, "(") else None
        if closing is None:
            return
        commas = [
            inner
            for inner in range(place + 2, closing)
            if self.tokens[inner].text == "," and self._outer(place + 1, inner)
        ]
        if len(commas) == 1:
            self._replace(place, place + 1, "(")
            self._replace(commas[0], commas[0] + 1, ") % (")
            self.edits.enclose(self._span(closing, closing + 1), behind=")")

    def all(self, place: int) -> None:
        """``sum(ALL x)``."""
        called = self._symbols(place - 1, "(") and self._is_name(place - 2)
        if called and not self._symbols(place + 1, ")"):
            self._replace(place, place + 1, "")

    def collate(self, place: int) -> None:
        """``text COLLATE "C"``: by their bytes, as texts are compared anyhow."""
        last = place + 3 if self._word(place + 1) == "PG_CATALOG" and self._symbols(place + 2, ".") else place + 1
        if last < len(self.tokens) and self.tokens[last].text in _BY_BYTES:
            self._replace(place, last + 1, "")

    def encode(self, place: int) -> None:
        """``encode(bytes, 'base64')``, which PostgreSQL fills up."""
        closing = self.pairs.get(place + 1) if self._symbols(place + 1, "(") else None
        if closing is not None and self.tokens[closing - 1].text.lower() == "'base64'":
            self._replace(closing - 1, closing, "'base64pad'")

    def _outer(self, opened: int, place: int) -> bool:
        """Whether a place is right within a bracket, and in none within that."""
        return not any(
            start > opened and start < place < self.pairs[start] for start in self.pairs if self.pairs[start] > start
        )


_WORDS: Mapping[str, Callable[[_Spelling, int], None]] = {
    "ALL": _Spelling.all,
    "COLLATE": _Spelling.collate,
    "CAST": _Spelling.cast_call,
    "TRY_CAST": _Spelling.cast_call,
    "FETCH": _Spelling.fetch,
    "OFFSET": _Spelling.offset,
    "MOD": _Spelling.mod,
    "ENCODE": _Spelling.encode,
    **dict.fromkeys(_TIMES, _Spelling.time),
    **dict.fromkeys(_MADE, _Spelling.typed),
}
