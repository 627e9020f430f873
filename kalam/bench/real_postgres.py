"""A PostgreSQL as its packages have it, if this machine has one: what the door for its clients is measured beside."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kalam.bench.rows import COLUMNS
from kalam.cli.failure import CommandFailed

START_S: Final = 60.0
STOP_S: Final = 30.0
POLL_S: Final = 0.05
PACKAGED: Final = Path("/usr/lib/postgresql")
USERS: Final = ("postgres", "nobody")
"""As whom it runs where we are root, which it refuses to be."""
SPARE_CONNECTIONS: Final = 20
ROW_COLUMNS: Final = (
    COLUMNS.format(id="BIGINT", key="PRIMARY KEY")
    .replace(" DOUBLE", " DOUBLE PRECISION")
    .replace("TIMESTAMP", "TIMESTAMPTZ")
)
"""The columns of the bench's rows, as its types are called here."""


class NoPostgres(Exception):
    """None can be started here; the text says why."""


def find_postgres() -> Path:
    """The folder of ``initdb`` and ``postgres``: where PATH names it, else the newest that Debian's packages keep.

    Raises NoPostgres where there is none, and where it could not be started.
    """
    on_path = shutil.which("initdb")
    known = [Path(on_path).resolve().parent] if on_path else []
    packaged = [folder for folder in PACKAGED.glob("*/bin") if folder.parent.name.isdigit()]
    known += sorted(packaged, key=lambda folder: int(folder.parent.name), reverse=True)
    for folder in known:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            _check_startable()
            return folder
    raise NoPostgres("there is none on this machine")


def _check_startable() -> None:
    if os.geteuid():
        return
    user, folder = _other_user(), Path(tempfile.gettempdir())
    if user is None:
        raise NoPostgres(f"it does not run as root, and there is none of the users {', '.join(USERS)}")
    closed = next((each for each in (folder, *folder.parents) if not each.stat().st_mode & stat.S_IXOTH), None)
    if closed is not None:
        raise NoPostgres(
            f"it runs as the user {user.pw_name}, to whom {closed} is closed (TMPDIR names another folder)"
        )


def _other_user() -> pwd.struct_passwd | None:
    """As whom its programs are run; None where that is as ourselves."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return None if os.geteuid() else next((known[name] for name in USERS if name in known), None)


class RealPostgres:
    """A PostgreSQL of its own in a temporary folder, as it is configured when it is new. Use it as a context manager.

    Its one user is ``bench``, who needs no password.
    """

    def __init__(self, programs: Path, connections: int) -> None:
        self._programs, self._connections = programs, connections
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"postgresql://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process above all of its processes."""
        assert self._process is not None
        return self._process.pid

    @property
    def version(self) -> str:
        """Its name and version."""
        told = subprocess.run([self._programs / "postgres", "--version"], capture_output=True, check=True)  # noqa: S603
        return f"PostgreSQL {told.stdout.decode().split()[2]}"

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="kalam-bench-postgres-"))
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its quick end, in which it cuts its sessions off
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        data, log = self._folder / "data", self._folder / "postgres.log"
        log.touch()
        runs_as: dict[str, Any] = {}
        if (user := _other_user()) is not None:
            runs_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for path in (self._folder, log):
                os.chown(path, user.pw_uid, user.pw_gid)
        made = subprocess.run(  # noqa: S603 - PostgreSQL's own program, here and below
            [self._programs / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale"],
            check=False,
            capture_output=True,
            cwd="/",
            **runs_as,
        )
        if made.returncode:
            raise CommandFailed(f"error: initdb failed\n{made.stderr.decode(errors='replace')}")
        self.port = _free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": self._connections + SPARE_CONNECTIONS,
        }
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with log.open("ab") as said:
            self._process = subprocess.Popen(  # noqa: S603
                [self._programs / "postgres", "-D", data, *flags],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                start_new_session=True,
                **runs_as,
            )
        self._wait_ready(log)

    def _wait_ready(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if b"ready to accept connections" in log.read_bytes():
                return
            time.sleep(POLL_S)
        raise CommandFailed(f"error: PostgreSQL did not start\n{log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
