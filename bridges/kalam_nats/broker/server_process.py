"""One run of a nats-server: from its launch, bound to the life of this process, to its end.

A broker that outlives a killed Kalam would still write to the store when the next Kalam starts another on it, and
nats-server takes no lock. So on Linux the kernel is asked to kill the child when its parent dies (PR_SET_PDEATHSIG).
That must be said in the child: a few lines of Python do so and then become nats-server by ``execv``, since code
between fork and exec of a process with threads may deadlock. The kernel takes "parent" to be the *thread* that forked:
launch from one that lives as long as the process, such as the main thread. Elsewhere than on Linux the child is merely
launched, and ``end_stale`` cleans up at the next start.

The child has a session of its own, so that ctrl-C in a terminal does not reach it before Kalam has drained.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from kalam.errors import BrokerUnavailable

CONFIGURATION_FILE = "nats.conf"
LOG_FILE = "nats.log"
OUTPUT_FILE = "nats.out"  # what is said before the log is open, and the traceback of a crash
PID_FILE = "nats.pid"

STOP_TIME_S = 10.0
LAST_WORDS_BYTES = 4_096
POLL_S = 0.005

_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

log = structlog.get_logger(__name__)


class Ports(msgspec.Struct, frozen=True):
    """The ports that a nats-server listens on; ``websocket`` is None when it does not."""

    nats: int
    websocket: int | None


class ServerProcess:
    """A nats-server that was launched with the configuration in ``folder``."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self._folder = folder
        self._process = process

    @classmethod
    async def launch(cls, binary: Path, folder: Path) -> ServerProcess:
        """Launch ``binary`` on ``folder/nats.conf``; raises BrokerUnavailable if the system refuses."""
        _forget_ports(folder)
        arguments = [str(binary), "-c", str(folder / CONFIGURATION_FILE)]
        if sys.platform == "linux":
            arguments = [sys.executable, "-I", "-S", "-c", _BOUND_TO_PARENT, str(os.getpid()), *arguments]
        try:
            with _fresh_output(folder) as output:
                process = await asyncio.create_subprocess_exec(
                    *arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        except OSError as exc:
            raise BrokerUnavailable(f"nats-server ({binary}) cannot be started: {exc}") from exc
        return cls(folder, process)

    @property
    def pid(self) -> int:
        """The process id of nats-server itself."""
        return self._process.pid

    async def wait_ready(self, host: str, timeout_s: float) -> Ports:
        """Wait until it takes clients on ``host`` and its JetStream is up; return its ports.

        Raises BrokerUnavailable when it died, saying why, or is not ready in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while (ports := self._ports()) is None or not await _greets_with_jetstream(host, ports.nats):
                    if self._process.returncode is not None:
                        raise BrokerUnavailable(f"nats-server did not start: {self.last_words()}")
                    await asyncio.sleep(POLL_S)
                return ports
        except TimeoutError as exc:
            raise BrokerUnavailable(
                f"nats-server was not ready within {timeout_s:g} s; see {self._folder / LOG_FILE}"
            ) from exc

    async def wait_exit(self) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End it: politely, so that JetStream writes its state, and by force after ``STOP_TIME_S``."""
        try:
            self._signal(signal.SIGTERM)
            async with asyncio.timeout(STOP_TIME_S):
                await self._process.wait()
        except TimeoutError:
            log.warning("nats_server_killed", pid=self.pid, after_s=STOP_TIME_S)
        finally:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def reload(self) -> None:
        """Have it read its configuration, and the files that it names, anew."""
        self._signal(signal.SIGHUP)

    def last_words(self) -> str:
        """Why it died, as far as it said: its last fatal log line, else the end of its output."""
        written = _tail(self._folder / LOG_FILE)
        fatal = re.findall(rf"^\[{self.pid}\] .*\[FTL\] (.*)$", written, re.MULTILINE)
        if fatal:
            return str(fatal[-1])
        output = _tail(self._folder / OUTPUT_FILE).strip()
        return output or f"it ended with status {self._process.returncode} and no message"

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    def _ports(self) -> Ports | None:
        """What nats-server wrote about its ports, None until it has."""
        for file in self._folder.glob(f"*_{self.pid}.ports"):
            try:
                said = json.loads(file.read_bytes())
            except ValueError:  # it is being written
                return None
            websocket = said.get("websocket")
            return Ports(_port(said["nats"][0]), _port(websocket[0]) if websocket else None)
        return None


def reachable_host(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


async def end_stale(folder: Path) -> None:
    """End the nats-server that a killed Kalam may have left on this folder.

    The caller holds the lock of the data directory, so whatever still runs on it is nobody's. Raises BrokerUnavailable
    if it does not go.
    """
    pid = _stale_pid(folder)
    if pid is None:
        return
    log.warning("stale_nats_server", pid=pid, folder=str(folder))
    for number, patience_s in ((signal.SIGTERM, STOP_TIME_S), (signal.SIGKILL, STOP_TIME_S)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if await _gone(folder, patience_s):
            return
    raise BrokerUnavailable(f"process {pid} is a nats-server that still runs on {folder} and cannot be ended")


async def _greets_with_jetstream(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(reachable_host(host), port)
    except OSError:
        return False
    try:
        greeting = await reader.readline()
        return greeting.startswith(b"INFO ") and json.loads(greeting[5:]).get("jetstream") is True
    except (OSError, ValueError):
        return False
    finally:
        writer.close()


async def _gone(folder: Path, patience_s: float) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            while _stale_pid(folder) is not None:  # noqa: ASYNC110 - no child of ours, so nothing tells of its end
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return False
    return True


def _stale_pid(folder: Path) -> int | None:
    """The process id in the folder's pid file, if that process lives and was started on this folder."""
    try:
        pid = int((folder / PID_FILE).read_text())
    except (OSError, ValueError):
        return None
    return pid if str(folder / CONFIGURATION_FILE) in _command_line(pid) else None


def _command_line(pid: int) -> str:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            return ""
    asked = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout  # noqa: S603 - no input of others


def _forget_ports(folder: Path) -> None:
    for leftover in folder.glob("*.ports"):
        leftover.unlink(missing_ok=True)


def _fresh_output(folder: Path) -> BinaryIO:
    return (folder / OUTPUT_FILE).open("wb")


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])
