"""Messages of rows, read: all that wait together at once where they may be, and each for itself where one is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Final, cast

import msgspec

from kalam.errors import KalamError, TooLarge
from kalam.rows.codec import Codec
from kalam.rows.door import RowDecoder
from kalam.rows.judged import judged
from kalam.rows.message_rows import MessageRows
from kalam.rows.taking import Taking
from kalam.rows.types import Row
from kalam.tables.insert_batch import Batch, InsertMessage
from kalam.tables.sifted import Sifted
from kalam.threads import Purpose, beside, in_thread

_START = itemgetter(slice(0, 1))
_ROW_STARTS = frozenset({b"{", *(b"%c" % first for first in range(0x80, 0x90))})
"""The first byte of a message that is a single row: of a JSON object or a msgpack map."""
_ARROW, _PAYLOAD = attrgetter("arrow"), attrgetter("payload")


INLINE_BYTES_MAX: Final = 384 << 10
"""More bytes of messages are read in a thread: as JSON they take the event loop two or three milliseconds."""


def is_long(messages: Sequence[InsertMessage]) -> bool:
    """Whether messages that came together are read in a thread."""
    return sum(map(len, map(_PAYLOAD, messages))) > INLINE_BYTES_MAX


class MessageReader:
    """Reads messages of at most ``rows_max`` rows each."""

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max

    def read(self, codec: Codec, user: str, users: Sequence[str] | None, messages: Sequence[InsertMessage]) -> Batch:
        """The rows of messages that want what is the rule; ``users`` are their senders where not all are ``user``."""
        if users is None or not codec.decoder.needs_user:
            return self._together(codec.decoder, user, messages)
        decoded: list[Sequence[Row] | KalamError] = []
        for sender, run in groupby(zip(users, messages, strict=True), itemgetter(0)):
            part = self._together(codec.decoder, sender, [message for _, message in run])
            decoded += [rows for _, rows in part.each()]
        return Batch.of(messages, decoded)

    async def read_beside(
        self, codec: Codec, user: str, users: Sequence[str] | None, messages: Sequence[InsertMessage]
    ) -> Batch:
        """The same, in a thread where the messages are long."""
        if not is_long(messages):
            return self.read(codec, user, users, messages)
        return await in_thread(Purpose.ROWS, self.read, codec, user, users, messages)

    def _together(self, decoder: RowDecoder, user: str, messages: Sequence[InsertMessage]) -> Batch:
        payloads = list(map(_PAYLOAD, messages))
        if _ROW_STARTS.issuperset(map(_START, payloads)) and not any(map(_ARROW, messages)):
            rows = decoder.decode_each(payloads, user=user)
            if any(isinstance(row, KalamError) for row in rows):
                return Batch.of(messages, [row if isinstance(row, KalamError) else [row] for row in rows])
            return Batch(messages, cast("list[Row]", rows))
        return Batch.of(messages, [self.read_one(decoder, user, message) for message in messages])

    def read_one(self, decoder: RowDecoder, user: str, message: InsertMessage) -> Sequence[Row] | KalamError:
        """The rows of one message, or what is wrong with it."""

        def decode() -> Sequence[Row]:
            rows = decoder.decode(message.payload, user=user, arrow=message.arrow, rows_max=self._rows_max)
            if len(rows) > self._rows_max:
                raise TooLarge(f"the message has {len(rows)} rows; batch_rows_max is {self._rows_max}")
            return rows

        return judged("message", decode)

    async def read_asking(self, codec: Codec, users: Sequence[str], messages: Sequence[InsertMessage]) -> Batch:
        """The same for messages of which some ask for another taking of their rows; what they name is not told."""
        decoded: list[Sequence[Row] | Sifted | KalamError] = []
        for taking, user, sent in _runs(codec.decoder.needs_user, users, messages):
            decoder = codec.decoder_of(msgspec.structs.replace(taking, conflict=None))
            read = partial(self._together, decoder, user, sent)
            batch = await in_thread(Purpose.ROWS, read) if is_long(sent) else read()
            for message, rows in batch.each():
                decoded.append(await self._sifted(decoder, user, message, rows) if taking.skip else rows)
        return Batch.of(messages, decoded)

    async def _sifted(
        self, decoder: RowDecoder, user: str, message: InsertMessage, rows: Sequence[Row] | KalamError
    ) -> Sifted | KalamError:
        source = self.source(message)
        if not isinstance(rows, KalamError):
            return Sifted(rows, source)
        found = judged("message", source)
        return found if isinstance(found, KalamError) else await beside(len(found), Sifted.read, found, decoder, user)

    def source(self, message: InsertMessage) -> partial[MessageRows]:
        """What gives the rows of a message as they came."""
        return partial(MessageRows, message.payload, arrow=message.arrow, rows_max=self._rows_max)


def _runs(
    needs_user: bool, users: Sequence[str], messages: Sequence[InsertMessage]
) -> Iterator[tuple[Taking, str, list[InsertMessage]]]:
    """Messages one after another that are read alike."""

    def alike(pair: tuple[str, InsertMessage]) -> tuple[Taking, str]:
        return pair[1].taking, pair[0] if needs_user else ""

    for (taking, user), run in groupby(zip(users, messages, strict=True), alike):
        yield taking, user, [message for _, message in run]
