"""What ``/metrics`` of a real server says, and that the manual names all of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import ServerProcess, SqlFailed

CHECKOUT = Path(__file__).parents[2]
PAGES = (CHECKOUT / "kalam" / "manual").glob("*.md")


def samples(server: ServerProcess) -> dict[str, float]:
    """Every sample by its name and labels, as ``name{label="value"}``."""
    found = {}
    for family in text_string_to_metric_families(server.metrics()):
        for name, labels, value, *_ in family.samples:
            shown = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
            found[f"{name}{{{shown}}}" if shown else name] = value
    return found


def named(server: ServerProcess) -> set[str]:
    """The metrics of a server as their help lines name them; those of when a counter began are the client's."""
    return {name for name in re.findall(r"^# HELP (\S+)", server.metrics(), re.MULTILINE) if name[-8:] != "_created"}


def documented() -> set[str]:
    (table,) = [
        found[1] for page in PAGES if (found := re.search(r"<!-- metrics -->(.*?)<!--", page.read_text(), re.DOTALL))
    ]
    return set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))


def test_the_manual_names_every_metric(shared_server: ServerProcess) -> None:
    always_there = {name for name in documented() if not name.startswith("kalam_pg_")}  # of a door that is off here
    assert always_there == named(shared_server)


async def test_changes_are_counted_by_kind_until_they_are_flushed(
    shared_server: ServerProcess, wait_until: Callable[[Callable[[], Any]], Awaitable[None]]
) -> None:
    server, before = shared_server, samples(shared_server)
    server.sql("CREATE NAMESPACE m; CREATE TABLE m.s (id BIGINT PRIMARY KEY); CREATE USER TABLE m.u (v TEXT)")
    server.sql("INSERT INTO m.s VALUES (1), (2), (3); UPDATE m.s SET id = 9 WHERE id = 3; DELETE FROM m.s WHERE id = 1")
    server.sql("INSERT INTO m.u VALUES ('x'), ('y')", user="ada")

    def grown(name: str) -> float:
        return samples(server)[name] - before.get(name, 0)

    assert grown('kalam_rows_committed_total{kind="SHARED",op="insert"}') == 4  # an UPDATE of a key is both
    assert grown('kalam_rows_committed_total{kind="SHARED",op="delete"}') == 2
    assert grown('kalam_rows_committed_total{kind="USER",op="insert"}') == 2
    assert grown('kalam_hot_rows{kind="USER"}') == 2
    assert samples(server)['kalam_hot_oldest_seconds{kind="USER"}'] > 0
    server.sql("FLUSH ALL TABLES")
    assert (samples(server)['kalam_hot_rows{kind="SHARED"}'], samples(server)['kalam_hot_rows{kind="USER"}']) == (0, 0)
    assert grown('kalam_jobs_ended_total{status="completed",type="flush"}') == 2
    assert grown('kalam_job_seconds_count{type="flush"}') == 2
    assert grown("kalam_flushed_rows_total") == 6  # versions: of key 1 the last one, of 3 none that lives
    await wait_until(lambda: samples(server)["kalam_outbox_changes"] == 0)
    assert grown("kalam_changes_published_total") == 8


def test_sql_is_counted_by_door_and_code(shared_server: ServerProcess) -> None:
    before = samples(shared_server)
    shared_server.sql("SELECT 1")
    with pytest.raises(SqlFailed):
        shared_server.sql("SELECT nothing")
    now = samples(shared_server)
    for code in ("ok", "column_not_found"):
        name = f'kalam_sql_requests_total{{code="{code}",door="http"}}'
        assert now[name] - before.get(name, 0) == 1
    assert now["kalam_sql_seconds_count"] - before["kalam_sql_seconds_count"] == 2
    assert now['kalam_sql_seconds_bucket{le="+Inf"}'] == now["kalam_sql_seconds_count"]


def test_only_so_many_tables_have_series_and_the_totals_count_all(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(KALAM_METRICS_TABLES_MAX="2")
    server.sql("CREATE NAMESPACE b")
    for name in ("b.c1", "b.c2", "b.c3"):
        server.sql(f"CREATE STREAM TABLE {name} (v TEXT); INSERT INTO {name} VALUES ('x'), ('y')")
    shown = re.findall(r'^kalam_stream_published_total{table="(\S+)"}', server.metrics(), re.MULTILINE)
    assert shown == ["b.c1", "b.c2"]
    assert samples(server)['kalam_stream_events_total{outcome="published"}'] == 6
    server.sql("DROP TABLE b.c1")
    assert samples(server)['kalam_stream_events_total{outcome="published"}'] == 6
