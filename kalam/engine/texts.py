"""From the text of a request to statements: short texts here, long ones in a thread or in a process of their own."""

from __future__ import annotations

from kalam.errors import TooLarge
from kalam.query.parsing import Parsing
from kalam.query.pool import Pool
from kalam.query.wire import Parse
from kalam.settings import Settings
from kalam.sql import parse_live
from kalam.sql.parsed import ParsedText, ParsedTexts
from kalam.sql.text.limits import ReadElsewhere, reading_here
from kalam.sql.text.recognised import is_values_insert
from kalam.sql.text.statements import ExecuteAs, QueryText, Statement, Subscribe
from kalam.threads import INLINE_CHARACTERS_MAX, Purpose, in_thread


class Texts:
    """Reads the texts of requests, within their bounds; keeps what was read of short ones."""

    def __init__(self, parsing: Parsing, *, bytes_max: int, statements_max: int) -> None:
        self._parsing, self._bytes_max, self._statements_max = parsing, bytes_max, statements_max
        self._parsed = ParsedTexts()

    @classmethod
    def of(cls, settings: Settings, pool: Pool) -> Texts:
        """A reader within the bounds of the settings."""
        parsing = Parsing(pool, settings.query_time_s)
        return cls(parsing, bytes_max=settings.statement_bytes_max, statements_max=settings.statements_max)

    def known_query(self, text: str) -> QueryText | None:
        """The query that a text is, if that can be said without reading it."""
        return self._parsed.known_query(text)

    async def split(self, text: str) -> ParsedText:
        """The statements of a text, not read yet; raises TooLarge and SyntaxFault."""
        if len(text) <= INLINE_CHARACTERS_MAX:
            self._check_size(text)
            parsed = self._parsed.parse(text)
        else:
            parsed = await in_thread(Purpose.TEXTS, self._split, text)
        if len(parsed) > self._statements_max:
            raise TooLarge(f"the text holds {len(parsed)} statements; statements_max is {self._statements_max}")
        return parsed

    def _split(self, text: str) -> ParsedText:
        self._check_size(text)
        return self._parsed.parse(text)

    def _check_size(self, text: str) -> None:
        if len(text) * 4 > self._bytes_max and len(text.encode("utf-8", "surrogatepass")) > self._bytes_max:
            raise TooLarge(f"the text is longer than statement_bytes_max ({self._bytes_max} bytes)")

    async def statement(self, parsed: ParsedText, place: int, user: str) -> Statement:
        """The statement at a place of a text; raises what the parser has against it.

        A VALUES list, which is most of what is long, is read by our own tokens and handed on as it is; a query or
        expression of that length is read by sqlglot, and in a process of its own.
        """
        text = parsed.texts[place]
        if len(text.text) <= INLINE_CHARACTERS_MAX:
            return parsed.statement(place)
        if is_values_insert(text.text):
            try:
                return await in_thread(Purpose.TEXTS, _read_here, parsed, place)
            except ReadElsewhere:
                pass
        found: Statement = await self._parsing.parse(
            Parse(text=text.text, offset=text.offset, line=text.line, column=text.column), user
        )
        return found

    async def live(self, text: str, user: str) -> Subscribe | ExecuteAs:
        """The live query that a text asks for."""
        if len(text) <= INLINE_CHARACTERS_MAX:
            return parse_live(text)
        found: Subscribe | ExecuteAs = await self._parsing.parse(Parse(text=text, live=True), user)
        return found


def _read_here(parsed: ParsedText, place: int) -> Statement:
    with reading_here(INLINE_CHARACTERS_MAX):
        return parsed.statement(place)
