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
from kalam.names import numbered
from kalam.rows.lone_values import timestamp_text
from kalam.storage.log.catalogue import from_us
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect, now_us

TIME_S = 10.0
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
        readiness = _get(f"{url}/readyz")
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


def _get(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=TIME_S) as response:  # noqa: S310 - the server's own address
            answer = response.read()
    except urllib.error.HTTPError as exc:
        with exc:
            answer = exc.read()
    found: dict[str, Any] = json.loads(answer)
    return found


def tables(patient: Patient) -> Iterator[Finding]:
    """The tables for which something cannot be done."""
    found = _told_by_jobs(patient) if patient.announced is None else _told_by_server(patient.announced["http_url"])
    troubled = list(found)
    yield from troubled
    if not troubled:
        yield Finding("ok", "tables", "none is in trouble")


def _told_by_server(url: str) -> Iterator[Finding]:
    metrics = metrics_of(url)
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


def metrics_of(url: str) -> str:
    """What a server tells Prometheus."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=TIME_S) as response:  # noqa: S310 - the server's own address
        return str(response.read().decode())


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
