"""The worker processes of queries: who gets one, what each knows, and that a spare one waits.

A worker carries out one query at a time and is killed to end it: a plan that does not yield cannot be asked to. A
worker is forked in milliseconds, so another takes its place at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import ref

import pyarrow as pa
import structlog

from kalam.errors import Internal, KalamError, TooLarge, error_class
from kalam.query.forks import Fork, oom_kills
from kalam.query.handed import Handed
from kalam.query.running import running_query
from kalam.query.wire import FAILURES, HEAD, Ask, Failure, Forget, Frame, files_message, question_message
from kalam.query.wire import FILES_MAX as FILES_A_MESSAGE

log = structlog.get_logger(__name__)

BUFFER_BYTES = 1 << 20
KNOWN_MAX = 2_048
LITTLE_BYTES = 64 << 10
ENDED_S = 2.0
MEMORY_HINT = "let it read or gather less, or raise the setting query_memory_bytes"
_NO_MEMORY = ("mimalloc: ", "memory allocation of ", "MemoryError", "out of memory", "cannot allocate memory")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class _Seen(ref[Handed]):
    """A reference to something that a worker knows, by which its end is noticed."""

    __slots__ = ("number",)
    number: int


class Worker:
    """A query process."""

    def __init__(self, fork: Fork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.fork = fork
        self._reader, self._writer = reader, writer
        self._known: OrderedDict[int, _Seen] = OrderedDict()
        self._gone: list[int] = []
        self._oom_kills = oom_kills()
        self.at_rest = True
        self.idle_since = asyncio.get_running_loop().time()
        self.cpu_s: float | None = None
        """The processor time that it had taken when it was last looked at; None since its last query."""

    @classmethod
    async def of(cls, fork: Fork) -> Worker:
        """The worker in a process that was forked."""
        try:
            reader, writer = await asyncio.open_unix_connection(sock=fork.answers, limit=BUFFER_BYTES)
        except BaseException:
            fork.discard()
            raise
        return cls(fork, reader, writer)

    def learns_little(self, relations: Sequence[Handed]) -> bool:
        """Whether ``question`` has no more to tell of these than the loop may wait for."""
        unknown = [each for relation in relations for each in relation.whole() if each.number not in self._known]
        return sum(each.byte_count for each in unknown) <= LITTLE_BYTES

    def question(self, ask: Ask, relations: Sequence[Handed]) -> tuple[bytes, list[int]]:
        """The message that asks, with what the worker does not know yet of these, and files to send. Blocking."""
        files: list[int] = []
        for handed in (each for relation in relations for each in relation.whole()):
            if handed.number in self._known:
                self._known.move_to_end(handed.number)
                continue
            told, file = handed.told()
            ask.told.append(told)
            if file is not None:
                files.append(file)
            seen = self._known[handed.number] = _Seen(handed, self._note_gone)
            seen.number = handed.number
        ask.forget = self._forgotten()
        return question_message(ask), files

    def _note_gone(self, seen: ref[Handed]) -> None:
        if isinstance(seen, _Seen):
            self._gone.append(seen.number)

    def _forgotten(self) -> list[int]:
        gone, self._gone = self._gone, []
        for number in gone:
            self._known.pop(number, None)
        return gone

    async def send(self, message: bytes, files: Sequence[int]) -> None:
        """Send a question; raises OSError where the worker is gone."""
        loop, sock = asyncio.get_running_loop(), self.fork.questions
        self.at_rest = False
        try:
            for start in range(0, len(files), FILES_A_MESSAGE):
                while True:
                    try:
                        sock.sendmsg(*files_message(files[start : start + FILES_A_MESSAGE]))
                        break
                    except BlockingIOError:  # it has not read the former ones yet
                        await asyncio.sleep(0.001)
            await loop.sock_sendall(sock, message)
        finally:
            for file in files:
                os.close(file)

    async def answer(self) -> AsyncGenerator[pa.Schema | pa.RecordBatch, None]:
        """The schema of the result, and then its rows; raises the error that the query ended in."""
        schema: pa.Schema | None = None
        while True:
            kind, body = await self._frame()
            match kind:
                case Frame.SCHEMA:
                    schema = pa.ipc.read_schema(pa.py_buffer(body))
                    yield schema
                case Frame.BATCH:
                    yield pa.ipc.read_record_batch(pa.py_buffer(body), schema)
                case Frame.STREAM:
                    for batch in pa.ipc.open_stream(body):
                        yield batch
                case Frame.END:
                    self.at_rest = True
                    return
                case Frame.FAILURE:
                    self.at_rest = True
                    raise error_of(FAILURES.decode(body))

    async def whole_answer(self) -> bytes:
        """The one frame of an answer that is no result; raises the error that it is."""
        kind, body = await self._frame()
        self.at_rest = True
        if kind is Frame.FAILURE:
            raise error_of(FAILURES.decode(body))
        return body

    async def _frame(self) -> tuple[Frame, bytes]:
        try:
            kind, size = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            return Frame(kind), await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as exc:
            raise await self.death() from exc

    async def death(self) -> KalamError:
        """Why the process ended by itself, as the error of the query that it ran."""
        status: int | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDED_S):
                status = await asyncio.shield(self.fork.ended)
        said = self.fork.said()
        if any(words in said for words in _NO_MEMORY) or (status == -signal.SIGKILL and oom_kills() > self._oom_kills):
            return TooLarge("the query needs more memory than it may have", hint=MEMORY_HINT)
        if not self.fork.killed:
            running = running_query()
            query_id = None if running is None else running.query_id
            log.error("a query process ended", query_id=query_id, pid=self.fork.pid, status=status, said=said)
        return Internal("the process that ran the query ended; the server's log has the reason")

    async def tidy(self) -> None:
        """Let the worker, which is idle, forget what nobody needs any more."""
        while len(self._known) > KNOWN_MAX:
            self._gone.append(self._known.popitem(last=False)[0])
        gone = self._forgotten()
        if gone:
            with suppress(OSError):  # it is gone, which the next query notices
                message = question_message(Forget(forget=gone))
                await asyncio.get_running_loop().sock_sendall(self.fork.questions, message)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self.fork.ended.done()

    def end(self) -> None:
        """Kill the process, whatever it does, and close what leads to it."""
        self.fork.kill()
        self._writer.close()
        self.fork.close()

    def memory_bytes(self) -> int:
        """The memory that it has for itself; 0 where that is not known."""
        with suppress(OSError, ValueError, IndexError):
            resident, shared = Path(f"/proc/{self.fork.pid}/statm").read_text().split()[1:3]
            return (int(resident) - int(shared)) * _PAGE
        return 0

    def used_cpu_s(self) -> float:
        """The processor time that it has taken; 0 where that is not known."""
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self.fork.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS
        return 0.0


def error_of(failure: Failure) -> KalamError:
    """The error that a worker told."""
    if failure.too_many is not None:
        return TooMany(failure.too_many)
    return error_class(failure.code)(failure.detail, **failure.fields)


class TooMany(TooLarge):
    """A result is past the bound that its reader set; ``what`` says whether in rows or in bytes."""

    code = "too_large"

    def __init__(self, what: str) -> None:
        super().__init__(f"the result has too many {what}")
        self.what = what
