"""nats-py's parser, with a short way for messages in bulk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

Tap = Callable[[bytes, bytes, bytes, Mapping[str, str] | None], None]
"""Takes the subject, the reply subject or nothing, the payload and the headers of a message."""
HeadedTap = Callable[[list[bytes], list[bytes], list[bytes], list[bytes]], None]
"""Takes messages that came in a row: subjects, reply subjects or nothing, header blocks or nothing, and payloads."""

log = structlog.get_logger(__name__)

NOT_TAKEN = "a message could not be taken"
HELD_BYTES_MAX = 64 << 10
"""A message that has come in part is held back for the short way up to this size."""


class TappingParser(Parser):
    """nats-py's parser, with a short way for messages that somebody taps, and with headers where these are wanted raw.

    nats-py matches two expressions and moves its buffer twice for each message; here that is done once for all that
    came together. Whatever is not a tapped message goes nats-py's way, one at a time between those that are.
    Who taps is found by the subscription's number as it comes, in digits.

    The lines that begin messages are read here alone, at blanks. A subject and a reply subject may have any other byte,
    and nats-py takes some of these for blanks: whoever may publish could say whose message it is.
    """

    def __init__(self, client: Client, taps: Mapping[bytes, Tap], headed: Mapping[bytes, HeadedTap]) -> None:
        super().__init__(client)
        self._taps, self._headed = taps, headed

    def take(self, data: bytes) -> bytes:
        """Hand over the tapped messages with which it begins; what is left for ``parse``.

        The start of a message that comes in part is kept for the next call of either.
        """
        if self.state != AWAITING_CONTROL_LINE:
            return data
        if self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        place, _, held = self._dispatch(data, 0)
        if held:
            self.buf.extend(data[place:])
            return b""
        return data[place:]

    async def parse(self, data: bytes = b"") -> None:
        """Parse what came, and dispatch it."""
        if self.state != AWAITING_CONTROL_LINE:
            missing = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        elif self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        place, size = 0, len(data)
        while place < size:
            place, following, held = self._dispatch(data, place)
            if held:
                self.buf.extend(data[place:])
                return
            await super().parse(data[place:following])
            if self.state != AWAITING_CONTROL_LINE or self.buf:
                await super().parse(data[following:])
                return
            place = following

    def _dispatch(self, data: bytes, place: int) -> tuple[int, int, bool]:
        """Hand over the tapped messages from ``place`` on.

        Where something else begins, or the rest of a message for which nats-py waits then; where that ends as far as
        can be told, and whether it is the start of a message.
        """
        size, taps, headed, find = len(data), self._taps, self._headed, data.find
        while data.startswith(b"MSG ", place) or data.startswith(b"HMSG ", place):
            end = find(b"\r\n", place)
            if end < 0:
                return place, size, True
            words = data[place:end].split(b" ")
            following = end + 4 + int(words[-1])
            if following > size:
                if following - place < HELD_BYTES_MAX:
                    return place, size, True
                self._await_rest(words)
                return end + 2, size, False
            sid = words[2]
            if (take := taps.get(sid)) is not None and words[0] == b"MSG":
                try:  # as hand_over, whose call would be felt here
                    take(words[1], words[3] if len(words) == 5 else b"", data[end + 2 : following - 2], None)
                except Exception:
                    log.exception(NOT_TAKEN, subject=shown(words[1]))
                place = following
            elif (take_headed := headed.get(sid)) is not None:
                place, run = _run(data, place, sid)
                hand_over_headed(take_headed, run)
            else:
                self._await_rest(words)
                return end + 2, following, False
        return place, _end_of_line(data, place), place == size

    def _await_rest(self, words: Sequence[bytes]) -> None:
        """Have nats-py wait for what follows the line that begins a message."""
        has_headers = words[0] == b"HMSG"
        reply = words[3] if len(words) == 5 + has_headers else b""
        self.msg_arg = {"subject": words[1], "sid": int(words[2]), "reply": reply}
        self.needed, self.header_needed = int(words[-1]), int(words[-2]) if has_headers else 0
        self.state = AWAITING_MSG_PAYLOAD


Run = tuple[list[bytes], list[bytes], list[bytes], list[bytes]]
"""What a HeadedTap takes."""


def _run(data: bytes, place: int, sid: bytes) -> tuple[int, Run]:
    """The whole messages in a row that one subscription has from ``place`` on, and where they end.

    This is all that is done for each message of a read in bulk: a call more for each would be felt.
    """
    run: Run = ([], [], [], [])
    add_subject, add_reply, add_headers, add_payload = (part.append for part in run)
    find, size = data.find, len(data)
    while (end := find(b"\r\n", place)) >= 0:
        words = data[place:end].split(b" ")
        count = len(words)
        if count < 4 or words[2] != sid:
            break
        begin = end + 2
        if words[0] == b"MSG":
            replies = count == 5
        elif words[0] == b"HMSG":
            replies = count == 6
            begin += int(words[-2])
        else:
            break
        following = end + 4 + int(words[-1])
        if following > size:
            break
        add_subject(words[1])
        add_reply(words[3] if replies else b"")
        add_headers(data[end + 2 : begin])
        add_payload(data[begin : following - 2])
        place = following
    return place, run


def _end_of_line(data: bytes, place: int) -> int:
    """Where the command of one line that begins at ``place`` ends."""
    end = data.find(b"\r\n", place)
    return len(data) if end < 0 else end + 2


def hand_over(take: Tap, subject: bytes, reply: bytes, payload: bytes, headers: Mapping[str, str] | None) -> None:
    """Hand a message over: one that cannot be taken must not end the reading of those behind it."""
    try:
        take(subject, reply, payload, headers)
    except Exception:
        log.exception(NOT_TAKEN, subject=shown(subject))


def hand_over_headed(take: HeadedTap, run: Run) -> None:
    """The same for messages that came in a row."""
    try:
        take(*run)
    except Exception:
        log.exception(NOT_TAKEN, subject=shown(run[0][0]))


def shown(subject: bytes) -> str:
    """A subject as the log has it."""
    return subject[:200].decode("utf-8", "replace")
