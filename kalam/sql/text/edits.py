"""Changes of a text at places of it: everything that is written into a user's text is written by these."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import msgspec
from msgspec.structs import replace

from kalam.sql.text.statements import QueryText, TableUse

Span = tuple[int, int]


class Edits(msgspec.Struct):
    """A text and what is written into it: once, when it is asked for, and the mentions of tables in it move along.

    Law: what encloses a part is written after what is within it. So at one place the openings of later changes stand
    before those of earlier ones, their closings behind them, and a part can be read with all that was changed in it.
    """

    text: str
    _openings: dict[int, list[str]] = msgspec.field(default_factory=dict)
    _closings: dict[int, list[str]] = msgspec.field(default_factory=dict)
    _replaced: dict[int, tuple[int, str]] = msgspec.field(default_factory=dict)

    def enclose(self, span: Span, before: str = "", behind: str = "") -> None:
        """Write something before and behind a part."""
        self._openings.setdefault(span[0], []).append(before)
        self._closings.setdefault(span[1], []).append(behind)

    def replace(self, span: Span, text: str) -> None:
        """Write something in the place of a part in which nothing was changed."""
        self._replaced[span[0]] = (span[1], text)

    def replace_whole(self, span: Span, text: str) -> None:
        """Write something in the place of a part and of all that was changed in it."""
        start, end = span
        for place in [place for place in self._openings if start <= place < end]:
            del self._openings[place]
        for place in [place for place in self._closings if start < place <= end]:
            del self._closings[place]
        for place in [place for place in self._replaced if start <= place < end]:
            del self._replaced[place]
        self.replace(span, text)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self._openings or self._replaced)

    def part(self, span: Span) -> str:
        """A part as it reads now, with what encloses the whole of it."""
        start, end = span
        places = {*self._openings, *self._closings, *self._replaced}
        pieces: list[str] = []
        position = start
        for place in sorted(place for place in places if start <= place <= end):
            pieces.append(self.text[position:place])
            position = max(position, place)
            if place > start:
                pieces += self._closings.get(place, ())
            if place < end:
                pieces += reversed(self._openings.get(place, ()))
                if place in self._replaced:
                    position, text = self._replaced[place]
                    pieces.append(text)
        pieces.append(self.text[position:end])
        return "".join(pieces)

    @property
    def whole(self) -> str:
        """The text as it reads now."""
        return self.part((0, len(self.text)))

    def moved(self, uses: tuple[TableUse, ...]) -> tuple[TableUse, ...]:
        """Mentions of tables in the text, in which nothing was changed, at the places that they have now."""
        written = (*self._openings.items(), *self._closings.items())
        grown = [(place, sum(map(len, texts))) for place, texts in written]
        grown += [(end, len(text) - (end - start)) for start, (end, text) in self._replaced.items()]
        grown.sort()
        by = [0, *accumulate(size for _, size in grown)]
        return tuple(use.moved(by[bisect_right(grown, use.start, key=lambda edit: edit[0])]) for use in uses)

    def applied(self, query: QueryText) -> QueryText:
        """The query whose text it is, as it reads now."""
        return replace(query, text=self.whole, tables=self.moved(query.tables)) if self.changed else query
