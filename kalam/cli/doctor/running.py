"""The server itself: what it says of its health and of its tables, or what its last jobs said."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kalam.cli.doctor.finding import Finding, Level, Patient
from kalam.credentials import NOBODY, Credentials
from kalam.names import numbered
from kalam.rows.lone_values import timestamp_text
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect, now_us
from kalam.storage.log.times import from_us
from kalam.urls import tls_context

TIME_S = 10.0
REFUSED = (401, 403, 429)
TROUBLE = re.compile(r'^kalam_table_trouble\{table="([^"]+)",what="([^"]+)"\} 1', re.MULTILINE)
DAMAGED = re.compile(r'^kalam_damaged_segments\{table="([^"]+)"\} ([1-9]\S*)', re.MULTILINE)
LOST_TOLD_US = 7 * 86_400_000_000
TROUBLE_OF_LAKE = "lake"
ADVICE = "SHOW STATS FOR TABLE and the log say more"


def server(patient: Patient) -> Iterator[Finding]:
    """Whether the server is ready."""
    if patient.announced is None:
        return
    url = patient.announced["http_url"]
    try:
        readiness = _get(f"{url}/readyz", patient.login)
    except (OSError, ValueError) as exc:
        yield Finding(
            "fail", "server", f"it does not answer at {url}: {exc}", "look at its log; restart it if it hangs"
        )
        return
    failing = [check for check in readiness["checks"] if not check["ok"]]
    for check in failing:
        yield Finding("fail", "server", f"not ready: {check['name']}: {check['detail']}")
    if not failing:
        yield Finding("ok", "server", f"ready at {url}")


def _get(url: str, login: Credentials = NOBODY) -> dict[str, Any]:
    """What is answered to somebody, and to a stranger where the login is refused."""
    try:
        answer = _read(url, login)
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code in REFUSED and login != NOBODY:
                return _get(url)
            answer = exc.read()
    found: dict[str, Any] = json.loads(answer)
    return found


def _read(url: str, login: Credentials) -> bytes:
    request = urllib.request.Request(url, headers=login.headers())  # noqa: S310 - the server's own address
    context = tls_context() if url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=TIME_S, context=context) as response:  # noqa: S310 - as above
        found: bytes = response.read()
        return found


def tables(patient: Patient) -> Iterator[Finding]:
    """The tables for which something cannot be done."""
    url = None if patient.announced is None else str(patient.announced["http_url"])
    if url is None:
        troubled = list(_told_by_jobs(patient))
    elif _get(f"{url}/v1/me", patient.login).get("admin"):
        troubled = list(_told_by_server(metrics_of(patient) or ""))
    else:
        text = "of damaged ones and those in trouble the server tells administrators alone"
        yield Finding("warn", "tables", text, "kalam login, or --user admin --password-file")
        troubled = list(_told_by_jobs(patient))
    yield from troubled
    if not troubled:
        yield Finding("ok", "tables", "none is in trouble")


def _told_by_server(metrics: str) -> Iterator[Finding]:
    for table, count in DAMAGED.findall(metrics):
        number = round(float(count))
        text = f"table {table}: {numbered(number, 'segment')} {'is' if number == 1 else 'are'} damaged"
        yield Finding("fail", "tables", text, "CHECK TABLE names them; put the files back from a backup")
    for table, what in TROUBLE.findall(metrics):
        level: Level = "warn" if what == TROUBLE_OF_LAKE else "fail"  # no row is lost or refused by it
        yield Finding(level, "tables", f"table {table}: {what} fails", ADVICE)


def _told_by_jobs(patient: Patient) -> Iterator[Finding]:
    if not (patient.data_dir / DATABASE).is_file():
        return
    with closing(connect(patient.data_dir / DATABASE, read_only=True)) as conn:
        rows = conn.execute(
            """SELECT namespace || '.' || table_name, job_type, error, max(jobs.created_us) FROM jobs
            JOIN tables USING (namespace, table_name) WHERE status IN ('completed', 'failed')
            GROUP BY 1, 2 HAVING status = 'failed'"""
        ).fetchall()
    for table, what, error, _ in rows:
        yield Finding(
            "warn", "tables", f"table {table}: the last {what} failed: {error}", "it is tried again at the start"
        )


def metrics_of(patient: Patient) -> str | None:
    """What the server tells Prometheus; None where it tells strangers nothing."""
    assert patient.announced is not None
    try:
        return _read(f"{patient.announced['http_url']}/metrics", patient.login).decode()
    except urllib.error.HTTPError as exc:
        with exc:
            if exc.code not in REFUSED:
                raise
        return None


def lost_events(patient: Patient) -> Iterator[Finding]:
    """What the broker's store was found to have lost in the last week."""
    if not (patient.data_dir / DATABASE).is_file():
        return
    with closing(connect(patient.data_dir / DATABASE, read_only=True)) as conn:
        if not conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'stream_ends'").fetchone():
            return  # no server of this release has run here yet
        rows = conn.execute(
            """SELECT stream, namespace || '.' || table_name, lost, lost_us FROM stream_ends
            LEFT JOIN tables USING (table_id) WHERE lost > 0 AND lost_us > ? ORDER BY lost_us""",
            (now_us() - LOST_TOLD_US,),
        ).fetchall()
    for stream, table, lost, lost_us in rows:
        what = f"stream {stream}" if table is None else f"table {table}"
        yield Finding(
            "warn",
            "events",
            f"{what}: {numbered(lost, 'event')} {'is' if lost == 1 else 'are'} lost, noticed last at "
            f"{timestamp_text(from_us(lost_us))}",
            "the broker's store was cut short or is an older one, or the power went before it was synced",
        )
    if not rows:
        yield Finding("ok", "events", "none was lost in the last week")
