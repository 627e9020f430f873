"""The lake: whether other engines read what was flushed last, and what is kept on the disk for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec

from kalam.cli.doctor.finding import Finding, Patient, size_text
from kalam.cli.doctor.running import metrics_of
from kalam.names import numbered
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect
from kalam.storage.segments.replaced import read_marked_bytes

FIGURE = re.compile(r"^kalam_lake_(\w+) (\S+)$", re.MULTILINE)
BEHIND_S_MAX = 300.0
"""Commits of so many seconds' lag on top of ``iceberg_interval_s`` are not merely busy."""


def lake(patient: Patient) -> Iterator[Finding]:
    """How it stands with the lake."""
    if find_spec("pyiceberg") is None:
        text = "the library pyiceberg is not installed, without which other engines cannot read the tables"
        yield Finding("warn", "lake", text, "pip install pyiceberg")
    elif patient.announced is not None:
        metrics = metrics_of(patient)
        if metrics is not None:
            yield _told_by_server(metrics, patient.settings.iceberg_interval_s + BEHIND_S_MAX)
    elif (patient.data_dir / DATABASE).is_file():
        with closing(connect(patient.data_dir / DATABASE, read_only=True)) as conn:
            if conn.execute("SELECT 1 FROM sqlite_schema WHERE name = 'replaced_segments'").fetchone():
                yield Finding("ok", "lake", f"{_kept(read_marked_bytes(conn))}; it follows while a server runs")


def _told_by_server(metrics: str, lag_s_max: float) -> Finding:
    figures = {name: float(value) for name, value in FIGURE.findall(metrics)}
    if not figures["tables"]:
        return Finding("ok", "lake", "no table has one")
    text = (
        f"{numbered(round(figures['tables']), 'table')}, {size_text(figures['metadata_bytes'])} of metadata, "
        f"{_kept(figures['kept_bytes'])}"
    )
    if figures["lag_seconds"] <= lag_s_max:
        return Finding("ok", "lake", text)
    behind = f"it is {figures['lag_seconds']:.0f} s behind the last flush; {text}"
    return Finding("warn", "lake", behind, "SHOW LAKE and the log say which table's, and why")


def _kept(byte_count: float) -> str:
    return f"{size_text(byte_count)} of replaced segments kept for other engines"
