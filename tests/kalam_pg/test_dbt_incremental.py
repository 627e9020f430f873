"""dbt's incremental models and snapshots, run three times: the tables are those that PostgreSQL has.

Between the runs rows come, change, go and come back. With the second run models get and lose columns; the third is
made with ``--full-refresh``.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from beside_postgres import real_postgres
from dbt_project import DBT, MISSING, statuses, write_project
from psycopg import sql

if DBT is None:
    pytest.skip(MISSING, allow_module_level=True)

EVENTS = "{{ source('raw', 'events') }}"
NEWER = "{% if is_incremental() %} where updated > (select max(updated) from {{ this }}) {% endif %}"
LATER = "{% if var('later') %}"
MODELS = {
    "appended": ("incremental_strategy='append'", "id, amount, updated"),
    "replaced": ("incremental_strategy='delete+insert', unique_key='id'", "id, region, amount, updated"),
    "replaced_by_two": (
        "incremental_strategy='delete+insert', unique_key=['part', 'region'], on_schema_change='append_new_columns'",
        f"part, region, amount, updated {LATER}, amount * 2 as twice, region as place {{% endif %}}",
    ),
    "merged": ("incremental_strategy='merge', unique_key='id'", "id, part, region, amount, updated"),
    "merged_by_two": (
        "incremental_strategy='merge', unique_key=['part', 'region'], on_schema_change='sync_all_columns'",
        f"part, {LATER} amount + 1 as more, id, {{% else %}} amount - 1 as less, at, {{% endif %}} region, updated",
    ),
    "batched": (
        "incremental_strategy='microbatch', unique_key='id', event_time='at', begin='2020-03-01', batch_size='day'",
        "id, region, amount, at",
    ),
}
SNAPSHOTS = {
    "by_time": "strategy='timestamp', updated_at='updated', unique_key='id'",
    "by_time_ended": "strategy='timestamp', updated_at='updated', unique_key='id', hard_deletes='invalidate'",
    "by_time_recorded": "strategy='timestamp', updated_at='updated', unique_key='id', hard_deletes='new_record'",
    "by_check": "strategy='check', check_cols=['amount', 'region'], unique_key='id'",
    "by_check_ended": "strategy='check', check_cols='all', unique_key=['part', 'region'], hard_deletes='invalidate'",
    "by_check_recorded": "strategy='check', check_cols=['amount'], unique_key='id', hard_deletes='new_record'",
}
NODES = {*MODELS, *SNAPSHOTS}
PROFILE = """
kalam:
  target: dev
  outputs:
    dev: {{type: postgres, host: {0.hostname}, port: {0.port}, user: {1}, password: none, dbname: {2}, schema: grown}}
"""

FIRST = """
CREATE SCHEMA raw;
CREATE TABLE raw.events (id INT PRIMARY KEY, part INT, region TEXT, amount INT, at TIMESTAMP, updated TIMESTAMP);
INSERT INTO raw.events VALUES
  (1, 1, 'north', 10, '2020-03-01 10:00:00', '2020-03-01 10:00:00'),
  (2, 1, 'south', 20, '2020-03-01 11:00:00', '2020-03-01 11:00:00'),
  (3, 2, 'north', 30, '2020-03-02 10:00:00', '2020-03-02 10:00:00'),
  (4, 2, 'south', NULL, '2020-03-02 11:00:00', '2020-03-02 11:00:00.123456'),
  (5, 3, 'west', 50, '2020-03-03 10:00:00', '2020-03-03 10:00:00');
"""
CHANGES = (
    """
UPDATE raw.events SET amount = 11, updated = '2020-03-04 10:00:00' WHERE id = 1;
UPDATE raw.events SET amount = 40, updated = '2020-03-04 10:00:00.5' WHERE id = 4;
DELETE FROM raw.events WHERE id IN (2, 5);
INSERT INTO raw.events VALUES (6, 3, 'east', 60, '2020-03-03 12:00:00', '2020-03-04 11:00:00');
""",
    """
INSERT INTO raw.events VALUES (2, 1, 'south', 21, '2020-03-01 11:00:00', '2020-03-05 11:00:00');
UPDATE raw.events SET region = 'up', updated = '2020-03-05 10:00:00' WHERE id = 3;
DELETE FROM raw.events WHERE id = 6;
""",
)
Rounds = list[dict[str, list[dict[str, Any]]]]
DAYS = ("--event-time-start=2020-03-01", "--event-time-end=2020-03-04")


def files() -> dict[str, str]:
    """The project."""
    written = {
        "dbt_project.yml": "name: grown\nversion: '1.0'\nprofile: kalam\nvars: {later: false}\n",
        "models/sources.yml": "sources: [{name: raw, tables: [{name: events, config: {event_time: at}}]}]\n",
    }
    for name, (said, columns) in MODELS.items():
        newer = NEWER if name != "batched" else ""
        head = f"{{{{ config(materialized='incremental', {said}) }}}}"
        written[f"models/{name}.sql"] = f"{head}\nselect {columns}\nfrom {EVENTS} {newer}\n"
    for name, said in SNAPSHOTS.items():
        shown = "id, part, region, amount, updated" if "'all'" in said else "*"  # which has columns of Kalam's own
        body = f"{{{{ config({said}) }}}}\nselect {shown} from {EVENTS}"
        written[f"snapshots/{name}.sql"] = f"{{% snapshot {name} %}}\n{body}\n{{% endsnapshot %}}\n"
    return written


def run(connection: psycopg.Connection, text: str) -> None:
    """Run statements one by one."""
    for statement in text.split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())


def tables(connection: psycopg.Connection) -> dict[str, list[dict[str, Any]]]:
    """The rows of what the project made, by their columns, in some order."""
    found = {}
    for name in sorted(NODES):
        cursor = connection.execute(sql.SQL("SELECT * FROM grown.{}").format(sql.Identifier(name)))
        names = [column.name for column in cursor.description or ()]
        rows = [
            {column: value_shown(value) for column, value in zip(names, row, strict=True) if not column.startswith("_")}
            for row in cursor.fetchall()
        ]
        hashes = [row.pop("dbt_scd_id") for row in rows if "dbt_scd_id" in row]  # of texts of times, which differ
        assert len(set(hashes)) == len(hashes), name
        found[name] = sorted(rows, key=repr)
    return found


def value_shown(value: Any) -> Any:
    """A value; a time of the run is one as any other, and a zone is told by one of the two alone."""
    if isinstance(value, datetime):
        return "now" if value.year > 2020 else value.replace(tzinfo=None).isoformat()
    return value


def rounds(project: Path, connection: psycopg.Connection) -> Rounds:
    """The tables after each of three runs."""
    run(connection, FIRST)
    found = []
    for changes, options in zip(("", *CHANGES), ((), ("--vars={later: true}",), ("--full-refresh",)), strict=True):
        run(connection, changes)
        done = statuses(project, "build", *options, *DAYS)
        assert done == dict.fromkeys(NODES, "success"), options
        found.append(tables(connection))
    return found


@pytest.fixture(scope="module")
def ours(pg_url: str, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """What Kalam has after each run."""
    folder = tmp_path_factory.mktemp("dbt")
    write_project(folder, {**files(), "profiles.yml": PROFILE.format(urlsplit(pg_url), "admin", "kalam")})
    with psycopg.connect(pg_url, autocommit=True) as connection:
        found = rounds(folder, connection)
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE '%__dbt_tmp%'").fetchone() == (0,)
        return found


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """What PostgreSQL has."""
    folder = tmp_path_factory.mktemp("dbt")
    with real_postgres() as real:
        place = urlsplit(f"//{real.info.host}:{real.info.port}")
        write_project(folder, {**files(), "profiles.yml": PROFILE.format(place, "bench", "postgres")})
        return rounds(folder, real)


def test_models_and_snapshots_have_what_was_asked_for(ours: Rounds) -> None:
    first, second, third = ours
    assert [row["id"] for row in first["merged"]] == [1, 2, 3, 4, 5]
    amounts = {row["id"]: row["amount"] for row in second["replaced"]}
    assert amounts == {1: 11, 2: 20, 3: 30, 4: 40, 5: 50, 6: 60}
    assert len(second["appended"]) == 8
    assert {row["region"]: row.get("twice") for row in second["replaced_by_two"] if row["part"] == 2} == {
        "north": None,
        "south": 80,
    }
    assert set(second["merged_by_two"][0]) == {"part", "region", "updated", "more", "id"}
    assert set(third["merged_by_two"][0]) == {"part", "region", "updated", "less", "at"}
    assert [row["dbt_is_deleted"] for row in second["by_check_recorded"] if row["id"] == 5] == ["False", "True"]


def test_every_table_is_as_postgresql_has_it(ours: Rounds, theirs: Rounds) -> None:
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True), 1):
        for name, rows in other.items():
            assert own[name] == rows, (number, name)
