"""What is said of materialized views that cannot be, and of what is done to views and sources that cannot be done."""

from __future__ import annotations

import pytest
from server_process import ServerProcess, SqlFailed

REFUSED = [
    # What says something else each time, or to each who asks.
    ("SELECT id, now() AS x FROM {n}.t", "", "unsupported", "now() cannot stand in a view"),
    ("SELECT id, current_timestamp AS x FROM {n}.t", "", "unsupported", "current_timestamp"),
    ("SELECT id, random() AS x FROM {n}.t", "", "unsupported", "random() cannot stand in a view"),
    ("SELECT id, uuid() AS x FROM {n}.t", "", "unsupported", "uuid() cannot stand in a view"),
    ("SELECT id, current_user() AS x FROM {n}.t", "", "unsupported", "current_user() cannot stand in a view"),
    ("SELECT id, current_roles() AS x FROM {n}.t", "", "unsupported", "current_roles() cannot stand in a view"),
    ("SELECT k, count(*) AS n FROM {n}.t WHERE at < now() GROUP BY k", "", "unsupported", "now()"),
    (
        "SELECT a.id FROM {n}.t a JOIN {n}.u b ON a.id = b.id WHERE random() < 1",
        "key = 'id'",
        "unsupported",
        "random()",
    ),
    ("SELECT id, _updated AS x FROM {n}.t", "", "unsupported", "_updated"),
    ("SELECT id FROM {n}.t WHERE v = $1", "", "unsupported", "parameters"),
    # What goes by an order that is not said.
    ("SELECT id FROM {n}.t LIMIT 3", "", "unsupported", "LIMIT without ORDER BY"),
    ("SELECT id FROM {n}.t WHERE id IN (SELECT id FROM {n}.u LIMIT 1)", "", "unsupported", "LIMIT without ORDER BY"),
    ("SELECT id FROM {n}.t OFFSET 3", "", "unsupported", "LIMIT or OFFSET without ORDER BY"),
    ("SELECT k, string_agg(k, ',') AS x FROM {n}.t GROUP BY k", "", "unsupported", "string_agg() without ORDER BY"),
    (
        "SELECT k, array_agg(v) AS x FROM {n}.t GROUP BY k",
        "",
        "unsupported",
        "BIGINT[], which no column of a table can be",
    ),
    ("SELECT id, row_number() OVER () AS x FROM {n}.t", "", "unsupported", "without ORDER BY in its OVER"),
    ("SELECT DISTINCT ON (k) k, v FROM {n}.t", "", "unsupported", "DISTINCT ON without ORDER BY"),
    ("SELECT id FROM {n}.t TABLESAMPLE BERNOULLI (10)", "", "unsupported", "TABLESAMPLE"),
    # What cannot be read.
    ("SELECT table_name FROM system.tables", "", "unsupported", "system"),
    ("SELECT table_name FROM information_schema.tables", "", "unsupported", "information_schema"),
    ("SELECT id FROM {n}.mine", "", "unsupported", "the USER table {n}.mine"),
    ("SELECT id FROM {n}.guarded", "", "unsupported", "{n}.guarded: it has row level security"),
    ("SELECT id FROM {n}.plain", "", "unsupported", "{n}.plain is a view"),
    ("SELECT id FROM {n}.four", "", "unsupported", "{n}.four is a view over views over views over views"),
    ("SELECT id FROM {n}.nothing", "", "table_not_found", "{n}.nothing"),
    ("SELECT nothing FROM {n}.t", "", "column_not_found", "nothing"),
    ("SELECT _key FROM {n}.s", "", "unsupported", "_key of the STREAM table {n}.s"),
    # What has to be run again, of events that are not kept.
    (
        "SELECT k, median(v) AS x FROM {n}.s GROUP BY k",
        "",
        "unsupported",
        "median(v) is kept by running its SELECT again",
    ),
    ("SELECT DISTINCT k FROM {n}.s", "", "unsupported", "DISTINCT is kept by running its SELECT again"),
    ("SELECT s.k FROM {n}.s s JOIN {n}.t t ON s.v = t.v", "key = 'k'", "unsupported", "{n}.s keeps no rows"),
    ("SELECT k, count(*) AS x FROM {n}.s GROUP BY k", "maintain = 'rerun'", "unsupported", "{n}.s keeps no rows"),
    # What is not kept by what changed alone, where that is asked for.
    *(
        (query, "maintain = 'incremental'", "unsupported", f"MAINTAIN = 'incremental': {what} cannot be kept")
        for query, what in (
            ("SELECT k, median(v) AS x FROM {n}.t GROUP BY k", "median(v)"),
            ("SELECT k, sum(DISTINCT v) AS x FROM {n}.t GROUP BY k", "sum(DISTINCT v)"),
            ("SELECT k, stddev(v) AS x FROM {n}.t GROUP BY k", "stddev(v)"),
            ("SELECT string_agg(k, ',' ORDER BY id) AS x FROM {n}.t", "string_agg(k, ',' ORDER BY id)"),
            ("SELECT a.id FROM {n}.t a JOIN {n}.u b ON a.id = b.id", "a query of several tables"),
            ("SELECT id FROM {n}.t UNION SELECT id FROM {n}.u", "a query of several tables"),
            ("SELECT id, rank() OVER (ORDER BY v) AS x FROM {n}.t", "a window function"),
            ("SELECT id FROM {n}.t ORDER BY v LIMIT 3", "LIMIT"),
            ("SELECT k FROM (SELECT k FROM {n}.t) q GROUP BY k", "a FROM of something else than one table"),
            ("SELECT k, count(*) AS x FROM {n}.t GROUP BY ROLLUP (k)", "GROUP BY ALL, ROLLUP, CUBE or GROUPING SETS"),
            ("WITH q AS (SELECT 1) SELECT k, count(*) AS x FROM {n}.t GROUP BY k", "WITH"),
        )
    ),
    ("SELECT id FROM {n}.t", "maintain = 'rerun'", "unsupported", "a row-wise view is kept by what changed alone"),
    # Keys, names and types.
    ("SELECT a.v FROM {n}.t a JOIN {n}.u b ON a.id = b.id", "", "invalid_option", "needs a key"),
    ("SELECT id FROM {n}.t", "key = 'nothing'", "invalid_option", "nothing"),
    ("SELECT id FROM {n}.t", "key = 'id, id'", "invalid_option", "id"),
    ("SELECT k FROM {n}.t UNION ALL SELECT k FROM {n}.t", "", "invalid_option", "needs a key"),
    ("SELECT * FROM {n}.t a JOIN {n}.u b ON a.id = b.id", "", "unsupported", "* over more than one table"),
    ("SELECT id + 1 FROM {n}.t", "", "unsupported", "has no name"),
    ("SELECT id, v AS id FROM {n}.t", "", "invalid_name", "id"),
    ("SELECT id, make_array(v) AS x FROM {n}.t", "", "unsupported", "column x of the SELECT"),
    ("SELECT id FROM {n}.t", "refresh = '2h'", "invalid_option", "REFRESH"),
    ("SELECT id FROM {n}.t", "maintain = 'somehow'", "invalid_option", "MAINTAIN"),
    ("SELECT id FROM {n}.t", "retention = '1h'", "invalid_option", "RETENTION_ON"),
    ("SELECT id, v FROM {n}.t", "retention = '1h', retention_on = 'v'", "invalid_option", "no TIMESTAMP"),
    ("SELECT id FROM {n}.t", "nothing = 1", "invalid_option", "NOTHING"),
]
LATER = [
    ("REFRESH MATERIALIZED VIEW {n}.nothing", "table_not_found", "{n}.nothing"),
    ("DROP MATERIALIZED VIEW {n}.nothing", "table_not_found", "{n}.nothing"),
    ("ALTER MATERIALIZED VIEW {n}.nothing SET (refresh = '1s')", "table_not_found", "{n}.nothing"),
    ("REFRESH MATERIALIZED VIEW {n}.t", "table_not_found", "no materialized view"),
    ("DROP MATERIALIZED VIEW {n}.plain", "table_not_found", "no materialized view"),
    ("REFRESH MATERIALIZED VIEW {n}.events", "unsupported", "it keeps what the stream of {n}.s may not hold"),
    ("DROP TABLE {n}.one", "unsupported", "DROP MATERIALIZED VIEW"),
    ("DROP MATERIALIZED VIEW {n}.one", "table_in_use", "{n}.two"),
    ("ALTER TABLE {n}.t ENABLE ROW LEVEL SECURITY", "table_in_use", "{n}.one"),
    ("ALTER TABLE {n}.t DROP COLUMN v", "table_in_use", "{n}.one"),
    ("ALTER MATERIALIZED VIEW {n}.one SET (maintain = 'rerun')", "unsupported", "MAINTAIN cannot be altered"),
    ("ALTER MATERIALIZED VIEW {n}.groups ADD COLUMN x AS k", "unsupported", "ADD COLUMN is for row-wise views"),
    ("INSERT INTO {n}.one VALUES (1, 1)", "unsupported", "materialized view"),
    ("UPDATE {n}.one SET v = 1", "unsupported", "materialized view"),
    ("DELETE FROM {n}.one", "unsupported", "materialized view"),
    ("CREATE MATERIALIZED VIEW {n}.one AS SELECT id FROM {n}.t", "already_exists", "{n}.one"),
    ("CREATE MATERIALIZED VIEW {n}.t AS SELECT id FROM {n}.u", "already_exists", "SHARED table"),
]


@pytest.fixture(scope="module")
def name(shared_server: ServerProcess) -> str:
    """A namespace with tables of every kind, and views over them."""
    n = "refusing"
    shared_server.sql(
        f"""CREATE NAMESPACE {n};
        CREATE TABLE {n}.t (id BIGINT PRIMARY KEY, k TEXT, v BIGINT, j JSON, at TIMESTAMP);
        CREATE TABLE {n}.u (id BIGINT PRIMARY KEY); CREATE STREAM TABLE {n}.s (k TEXT, v BIGINT);
        CREATE USER TABLE {n}.mine (id BIGINT PRIMARY KEY);
        CREATE TABLE {n}.guarded (id BIGINT PRIMARY KEY); ALTER TABLE {n}.guarded ENABLE ROW LEVEL SECURITY;
        CREATE VIEW {n}.plain AS SELECT id FROM {n}.t;
        CREATE MATERIALIZED VIEW {n}.one AS SELECT id, v FROM {n}.t;
        CREATE MATERIALIZED VIEW {n}.two AS SELECT id FROM {n}.one;
        CREATE MATERIALIZED VIEW {n}.three AS SELECT id FROM {n}.two;
        CREATE MATERIALIZED VIEW {n}.four AS SELECT id FROM {n}.three;
        CREATE MATERIALIZED VIEW {n}.groups AS SELECT k, count(*) AS n FROM {n}.t GROUP BY k;
        CREATE MATERIALIZED VIEW {n}.events AS SELECT k FROM {n}.s"""
    )
    return n


@pytest.mark.parametrize(("select", "options", "code", "told"), REFUSED)
def test_what_cannot_be_a_materialized_view_is_refused_by_the_part_that_cannot_be(
    shared_server: ServerProcess, name: str, select: str, options: str, code: str, told: str
) -> None:
    given = f" WITH ({options})" if options else ""
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(f"CREATE MATERIALIZED VIEW {name}.made{given} AS {select.format(n=name)}")
    assert (refused.value.code, told.format(n=name) in str(refused.value)) == (code, True), refused.value
    assert shared_server.sql("SELECT view_name FROM system.views WHERE view_name = 'made'") == []


@pytest.mark.parametrize(("text", "code", "told"), LATER)
def test_what_cannot_be_done_to_a_view_or_what_it_reads_is_refused(
    shared_server: ServerProcess, name: str, text: str, code: str, told: str
) -> None:
    with pytest.raises(SqlFailed) as refused:
        shared_server.sql(text.format(n=name))
    said = f"{refused.value} {refused.value.problem.get('hint', '')}"
    assert (refused.value.code, told.format(n=name) in said) == (code, True), said
