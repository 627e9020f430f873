"""Changes of a text at places of it, the innermost first."""

from __future__ import annotations

import msgspec

Span = tuple[int, int]


class Edits(msgspec.Struct):
    """A text and what is written into it.

    Law: what encloses a part is written after what is within it. So at one place the openings of later changes stand
    before those of earlier ones, their closings behind them, and a part can be read with all that was changed in it.
    """

    text: str
    _openings: dict[int, list[str]] = msgspec.field(default_factory=dict)
    _closings: dict[int, list[str]] = msgspec.field(default_factory=dict)
    _replaced: dict[int, tuple[int, str]] = msgspec.field(default_factory=dict)

    def enclose(self, span: Span, before: str, behind: str) -> None:
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
