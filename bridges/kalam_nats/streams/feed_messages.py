"""What lies in the change feeds: how a message is asked for, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg

from kalam.errors import BrokerUnavailable
from kalam.rows.judged import UNREADABLE
from kalam.storage.log.copies import Op
from kalam_nats.broker.guarded_client import GuardedClient

TABLE_HEADER = "Kalam-Table"
ANSWER_S = 5.0


class Run(msgspec.Struct):
    """What a message says of its place: it begins with change ``seq`` and carries ``rows``, or none for a TRUNCATE."""

    seq: int
    rows: list[msgspec.Raw] = []

    @property
    def last_seq(self) -> int:
        """The last of its changes."""
        return self.seq + max(len(self.rows), 1) - 1


class Body(msgspec.Struct):
    """A run of changes, the first numbered ``seq``."""

    op: Op
    seq: int
    rows: list[dict[str, Any]] = []
    old: list[dict[str, Any]] | None = None


_Read = TypeVar("_Read", Run, Body)


class FeedMessage(msgspec.Struct, frozen=True):
    """A message: its place in the stream, the table that it is of (0 for none), and its payload."""

    place: int
    table_id: int
    payload: bytes

    def read(self, kind: type[_Read]) -> _Read | None:
        """What it says; None if it is none of ours. Its format is its own: an ALTER may have set another since."""
        try:
            decode = msgspec.json.decode if self.payload[:1] == b"{" else msgspec.msgpack.decode
            return decode(self.payload, type=kind)
        except UNREADABLE:
            return None


async def one_message(client: GuardedClient, stream: str, question: Mapping[str, Any]) -> FeedMessage | None:
    """The message that a question asks for; None if there is none. Raises BrokerUnavailable, and what nats-py does."""
    answer = await client.request(direct_get(stream), msgspec.json.encode(question), timeout=ANSWER_S)
    return message_of(answer)


def direct_get(stream: str) -> str:
    """The subject that answers with messages of a stream."""
    return f"$JS.API.DIRECT.GET.{stream}"


def message_of(answer: Msg) -> FeedMessage | None:
    """The message that an answer is; None where it says that there are no more. Raises BrokerUnavailable."""
    headers = answer.headers or {}
    if "Nats-Sequence" in headers:
        number = headers.get(TABLE_HEADER, "")
        return FeedMessage(int(headers["Nats-Sequence"]), int(number) if number.isdecimal() else 0, answer.data)
    if headers.get("Status") not in ("204", "404"):
        raise BrokerUnavailable(f"the change feed answered {headers.get('Description', headers)}")
    return None


@contextmanager
def answering() -> Iterator[None]:
    """Raise BrokerUnavailable where a question about the feed gets no answer."""
    try:
        yield
    except (nats_errors.Error, TimeoutError, OSError) as exc:
        raise BrokerUnavailable(f"the change feed does not answer: {exc or type(exc).__name__}") from exc
