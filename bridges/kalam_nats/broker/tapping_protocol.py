"""What a connection receives, looked at where it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kalam_nats.broker.tapping_parser import TappingParser


class TappingProtocol(asyncio.Protocol):
    """Stands before the ``reader`` of nats-py's loop, and hands over tapped messages in the very read that brings them.

    Only while that loop waits with nothing left to read: then nothing is overtaken. What is for nats-py goes into the
    reader, and all that follows goes behind it. After each read ``handed_over`` is called.

    What goes by the reader and the task behind it is copied twice more, and taken a turn of the event loop later.
    """

    def __init__(
        self,
        inner: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        parser: TappingParser,
        handed_over: Callable[[], None],
    ) -> None:
        self._inner, self._reader, self._parser, self._handed_over = inner, reader, parser, handed_over

    def data_received(self, data: bytes) -> None:
        """Hand over what is tapped, and leave the rest to nats-py."""
        if self._reader._waiter is not None:  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio tells it nowhere else
            data = self._parser.take(data)
            self._handed_over()
        if data:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The broker sends nothing more."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._inner.resume_writing()
