"""A server as a process: ready, it says so in ``kalam.json`` and on standard output; SIGTERM and SIGINT end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys

import msgspec
import structlog

from kalam.engine import Engine
from kalam.errors import Internal, KalamError
from kalam.garbage_collection import spare_the_collector
from kalam.logs import configure_logs
from kalam.server import open_server
from kalam.settings import Settings
from kalam.spans import open_spans
from kalam.start_checks import doubts
from kalam.storage.log.data_dir import ANNOUNCEMENT
from kalam.storage.log.open_files import raise_limit

log = structlog.get_logger(__name__)

WARM_UP_S = 2.0
"""How long after the start what queries need is made ready, unless one wants it before: a busy start comes first."""


def run(settings: Settings) -> int:
    """Run a server in this process until it is told to stop; returns the exit status."""
    import uvloop

    configure_logs(settings.log_format, settings.log_level)
    raise_limit()
    open_spans()
    for message, fields in doubts(settings, os.environ):
        log.warning(message, **fields)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except (OSError, sqlite3.Error) as exc:
        log.debug("the server ended", exc_info=exc)
        print(f"error: {exc}", file=sys.stderr)  # noqa: T201 - what a person reads
        return 1
    except KalamError as exc:
        hint = f" ({exc.fields['hint']})" if "hint" in exc.fields else ""
        code = "" if exc.code == Internal.code else f" [{exc.code}]"  # to start is refused, and nothing is defective
        print(f"error{code}: {exc.detail}{hint}", file=sys.stderr)  # noqa: T201 - what a person reads
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Run a server until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_server(settings, stop) as server:
        if server.certificates is not None:  # else a terminal that is closed ends the server, as any program
            loop.add_signal_handler(signal.SIGHUP, server.certificates.reload)
        line = msgspec.json.encode(announced := server.announcement()).decode()
        spare_the_collector()
        announcement = settings.data_dir / ANNOUNCEMENT
        temporary = announcement.with_suffix(".tmp")
        temporary.write_text(line + "\n")
        temporary.replace(announcement)
        print(line, flush=True)  # noqa: T201 - the contract: the line that says that the server is ready
        doors = {name[:-4]: url for name, url in announced.items() if name.endswith("_url") and url}
        log.info("ready", **doors, data=str(settings.data_dir))
        warming = asyncio.create_task(_warm_up(server.engine), name="warm-up")
        await stop.wait()
        log.info("stopping")
        warming.cancel()


async def _warm_up(engine: Engine) -> None:
    await asyncio.sleep(WARM_UP_S)
    await engine.warm_up()
