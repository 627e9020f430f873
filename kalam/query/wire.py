"""What the server and its query processes tell each other.

A worker is asked on one socket and answers on another. A question is msgpack behind a mark and its length; the files
that it speaks of come before it, behind a mark of their own. An answer is a run of frames: the schema of the rows, any
number of record batches, and an end or a failure. What a query reads is told once, under a number, and named by that
number until the server says that it may be forgotten.
"""

from __future__ import annotations

import array
import enum
import socket
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

FILES, MESSAGE = b"F", b"M"
LENGTH = struct.Struct("<Q")
HEAD = struct.Struct("<cQ")
"""Kind and length of an answer's frame."""
FILES_MAX = 200
"""Files that one message of a socket carries; Linux takes 253."""


class Frame(enum.Enum):
    """What a frame of an answer holds."""

    SCHEMA = b"S"
    BATCH = b"B"
    STREAM = b"D"  # a batch as a stream of its own, where its columns have dictionaries
    END = b"E"
    FAILURE = b"F"


class Bytes(msgspec.Struct, tag="bytes", frozen=True, array_like=True):
    """An Arrow stream: here, or, where ``data`` is None, in the next of the files that came along."""

    number: int
    data: bytes | None


class Files(msgspec.Struct, tag="files", frozen=True, array_like=True):
    """Segments, all those in a folder; ``schema`` is what is read of each."""

    number: int
    folder: str
    schema: bytes


class Rows(msgspec.Struct, tag="rows", frozen=True, array_like=True):
    """A table in memory, of pieces that are ``Bytes``."""

    number: int
    schema: bytes
    pieces: list[int]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Segments of a copy that are read alike.

    ``names`` are the table's columns as the files call them, None for one that they lack, which reads as its value in
    ``fills``, an Arrow stream of one row. ``hidden`` says whether some of the rows are hidden by ``Copy.hidden``, and
    ``by_seq`` whether the seq then counts.
    """

    files: int
    names: list[str | None]
    fills: bytes | None
    deleted: bool
    hidden: bool
    by_seq: bool


class Copy(msgspec.Struct, tag="copy", frozen=True, array_like=True):
    """One state of a copy: its segments without what ``hidden`` (``Rows``) hides of them, and its hot ``rows``.

    ``key`` names the key's columns. ``schema`` has the table's columns with their SQL types as metadata, and the
    system columns; it is shown ``without`` some of them.
    """

    number: int
    key: list[str]
    schema: bytes
    parts: list[Part]
    hidden: int | None
    rows: int | None
    with_seq: bool
    without: list[str] = []


Told = Bytes | Files | Rows | Copy


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """A name of the query and what it stands for: the number of ``Rows`` or of a ``Copy``.

    ``guard`` is the condition of the policies over it, where there are any: only what meets it is there.
    """

    namespace: str
    table: str
    number: int
    guard: str | None = None


class Untyped(msgspec.Struct, frozen=True, array_like=True):
    """What is known of the ``count`` parameters of a query that is only to be described.

    ``declared`` and ``outputs`` are Arrow schemas: the types that somebody has declared, under the numbers of the
    parameters, and those that parameters take which are columns of the query as they are, under the places of these.
    """

    count: int
    declared: bytes
    outputs: bytes


class Around(msgspec.Struct, frozen=True, array_like=True):
    """A query of Kalam's own over the rows of another one, which have this name. It is run as it stands, not as SQL."""

    namespace: str
    table: str
    text: str


class Ask(msgspec.Struct, tag="ask", kw_only=True):
    """Run a query. A result past ``rows_max`` or ``bytes_max`` is a failure.

    ``typed`` is an Arrow stream of one row with the parameters that are bound with a type. ``tells_plan`` asks for the
    schema as soon as there is a plan, and not together with the first rows. With ``untyped`` nothing is run, and the
    answer is two schemas: that of the parameters, under their numbers, and that of the rows. ``around`` is asked of
    the rows in their place.
    """

    text: str
    bound: list[Bound]
    parameters: list[Any] = []
    typed: bytes | None = None
    untyped: Untyped | None = None
    around: Around | None = None
    casts: Sequence[int] = ()
    in_order: bool = False
    rows_max: int | None = None
    bytes_max: int | None = None
    tells_plan: bool = False
    told: list[Told] = []
    forget: list[int] = []


class Forget(msgspec.Struct, tag="forget"):
    """Let go of what was told. Has no answer."""

    forget: list[int]


class Condition(msgspec.Struct, frozen=True, array_like=True):
    """The WHERE of live queries; ``alone`` says that it is not judged together with others, ``anew`` each time anew."""

    number: int
    text: str
    parameters: list[Any]
    alone: bool
    anew: bool


class Parse(msgspec.Struct, tag="parse", kw_only=True):
    """Read a statement, or the text of a live query. Answers with the statement, pickled."""

    text: str
    offset: int = 0
    line: int = 1
    column: int = 1
    live: bool = False


class Check(msgspec.Struct, tag="check", kw_only=True):
    """Plan the WHERE of a live query over a table of this schema; answers ``END`` or a failure."""

    namespace: str
    table: str
    schema: bytes
    text: str
    parameters: list[Any]


class Judge(msgspec.Struct, tag="judge", kw_only=True):
    """Judge conditions over rows, an Arrow stream. Answers with the failure of one, or a batch of places for each."""

    namespace: str
    table: str
    rows: bytes
    conditions: list[int]
    told: list[Condition] = []
    forget: list[int] = []


class Compute(msgspec.Struct, tag="compute", kw_only=True):
    """Run a query over rows, an Arrow stream, that are the whole of its one table. Answers with a stream, or a failure.

    The query is told once, under its number, and planned once.
    """

    number: int
    rows: bytes
    told: Computed | None = None
    forget: list[int] = []


class Computed(msgspec.Struct, frozen=True, array_like=True):
    """A query over one table that is asked of batch after batch, each row by itself."""

    namespace: str
    table: str
    text: str
    schema: bytes


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """The places of the rows for which a condition holds, as int32 side by side, or why it cannot be said."""

    number: int
    places: bytes
    failure: Failure | None = None


class Failure(msgspec.Struct, frozen=True):
    """An error by its code; ``too_many`` says which bound of the question the result is past."""

    code: str
    detail: str
    fields: dict[str, Any] = {}
    too_many: str | None = None


Question = Ask | Forget | Parse | Check | Judge | Compute
ENCODER = msgspec.msgpack.Encoder()
QUESTIONS: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
FAILURES = msgspec.msgpack.Decoder(Failure)
VERDICTS = msgspec.msgpack.Decoder(list[Verdict])


def files_message(files: Sequence[int]) -> tuple[list[bytes], list[tuple[int, int, array.array[int]]]]:
    """What ``sendmsg`` takes to hand over open files."""
    return [FILES], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]


def receive_question(sock: socket.socket) -> tuple[Question, list[int]] | None:
    """The next question and its files; None where the server is gone. Blocking."""
    files: list[int] = []
    while True:
        mark, received, _, _ = socket.recv_fds(sock, 1, FILES_MAX)
        files += received
        if not mark:
            return None
        if mark == MESSAGE:
            head = receive_exactly(sock, LENGTH.size)
            body = receive_exactly(sock, LENGTH.unpack(head)[0]) if head else None
            return None if body is None else (QUESTIONS.decode(body), files)


def receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    """So many bytes; None where the other side is gone before. Blocking."""
    received = bytearray(size)
    view, place = memoryview(received), 0
    while place < size:
        count = sock.recv_into(view[place:])
        if not count:
            return None
        place += count
    return bytes(received)


def question_message(question: Question) -> bytes:
    """A question as it is sent."""
    body = ENCODER.encode(question)
    return MESSAGE + LENGTH.pack(len(body)) + body
