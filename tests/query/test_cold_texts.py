"""Texts of segments are the texts that they are in memory, in whatever they take part, and of the same types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pyarrow as pa
import pytest
from server_process import ServerProcess

LONG = "a text of more than twelve characters "
COLUMNS = "id INT, u UUID, n INT, s TEXT, v VARCHAR(80), j JSON"
LATER = "later TEXT DEFAULT 'a default that is not short'"
QUERIES = (
    "SELECT s, count(*), max(k), min(v) FROM {t} GROUP BY s ORDER BY s NULLS FIRST",
    "SELECT * FROM {t} ORDER BY k",
    "SELECT k, s FROM {t} ORDER BY s DESC NULLS LAST, k LIMIT 3",
    "SELECT DISTINCT v FROM {t} ORDER BY v",
    "SELECT count(DISTINCT s), count(DISTINCT v), max(u), min(CAST(j AS TEXT)) FROM {t}",
    "SELECT n, array_agg(s ORDER BY k), string_agg(k, ',' ORDER BY k) FROM {t} GROUP BY n ORDER BY n",
    "SELECT struct(k, s) FROM {t} ORDER BY k",
    "SELECT upper(s), lower(v), s || v, substr(s, 3), length(s), coalesce(s, v) FROM {t} ORDER BY k",
    "SELECT CASE WHEN n > 1 THEN s ELSE 'else' END, NULLIF(s, v), greatest(s, v), s = v, s < v FROM {t} ORDER BY k",
    "SELECT count(*) FROM {t} WHERE s LIKE 'a text%' AND v ILIKE '%R%' OR s IN ('x', 'short') OR k BETWEEN 'a' AND 'c'",
    "SELECT count(*) FROM {t} WHERE s SIMILAR TO '%(1|2)' OR s ~ '3$' OR starts_with(v, 'sh')",
    "SELECT j -> 'a', j ->> 'a', CAST(j AS TEXT), CAST(u AS TEXT) FROM {t} ORDER BY k",
    "SELECT j ->> 'a', count(*) FROM {t} GROUP BY j ->> 'a' ORDER BY 1",
    "SELECT max(CAST(id AS TEXT)), min(s || CAST(n AS TEXT)) FROM {t} WHERE u IS NOT NULL",
    "SELECT k, row_number() OVER (PARTITION BY v ORDER BY k), lag(s) OVER (ORDER BY k) FROM {t} ORDER BY k",
    "SELECT s FROM {t} WHERE n = 1 UNION SELECT 'short' ORDER BY s",
    "SELECT later, count(*) FROM {t} GROUP BY later ORDER BY later",
    "SELECT a.s, count(*) FROM {t} AS a JOIN {t} AS b ON a.v = b.v AND a.k <= b.k GROUP BY a.s ORDER BY a.s",
    "WITH x AS (SELECT DISTINCT v FROM {t}) SELECT count(*) FROM x AS a, x AS b WHERE a.v = b.v ORDER BY 1",
    "SELECT k FROM {t} WHERE s IN (SELECT max(s) FROM {t} GROUP BY v) ORDER BY k",
    "SELECT k, _deleted FROM {t} WHERE _deleted OR n > 0 ORDER BY k, _deleted",
    "SELECT max(n + 1.5), sum(n * 2) FROM {t} GROUP BY s ORDER BY 1, 2",
    "SELECT to_char(_updated, 'YYYY') = to_char(now(), 'YYYY'), count(*) FROM {t} GROUP BY 1 ORDER BY 1",
)


@pytest.fixture(scope="module")
def tables(shared_server: ServerProcess) -> Iterator[tuple[str, str]]:
    """The same rows: in memory alone; in segments of two layouts, some of them hidden, and beside them in memory."""
    sql = shared_server.sql
    sql("CREATE NAMESPACE ct")
    for table in ("ct.hot", "ct.cold"):
        flush = f"FLUSH TABLE {table}" if table == "ct.cold" else "SELECT 1"
        sql(f"CREATE SHARED TABLE {table} (k TEXT PRIMARY KEY, {COLUMNS}) WITH (FLUSH_POLICY = 'rows:1000000')")
        sql(f"INSERT INTO {table} VALUES {rows(0, 6)}; {flush}")
        sql(f"ALTER TABLE {table} ADD COLUMN {LATER}; INSERT INTO {table} VALUES {rows(6, 9, ', NULL')}; {flush}")
        sql(f"UPDATE {table} SET s = 'short' WHERE k = 'b'; DELETE FROM {table} WHERE k = 'c'; {flush}")
        sql(f"UPDATE {table} SET v = 'changed' WHERE k = 'd'; DELETE FROM {table} WHERE k = 'e'")
        sql(f"INSERT INTO {table} VALUES {rows(9, 12, ', $$hot$$')}".replace("$$", "'"))
    yield "ct.hot", "ct.cold"
    sql("DROP NAMESPACE ct CASCADE")


def rows(first: int, last: int, more: str = "") -> str:
    """Rows of all kinds of texts: NULL, empty, short, long, and of several bytes a character."""
    texts = ("NULL", "''", "'short'", f"'{LONG}1'", f"'{LONG}2'", "'ÄÖ 日本語 ß und mehr'")
    return ", ".join(
        f"('{chr(97 + i)}', {i}, '0000000{i % 10}-0000-4000-8000-000000000000', {i % 3}, {texts[i % 6]}, "
        f'{texts[(i + 2) % 5]}, \'{{"a": "{LONG}{i % 2}"}}\'{more})'
        for i in range(first, last)
    )


def answered(server: ServerProcess, text: str) -> object:
    """The columns with their types, whichever table they are of, and the rows without the time of their changes."""
    request = Request(f"{server.http_url}/v1/sql", json.dumps({"sql": text}).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    with urlopen(request) as response:
        [result] = json.load(response)["results"]
    shown = [place for place, column in enumerate(result["columns"]) if column["name"] != "_updated"]
    columns = [(column["name"].replace("ct.cold", "ct.hot"), column["type"]) for column in result["columns"]]
    return columns, [[row[place] for place in shown] for row in result["rows"]]


@pytest.mark.parametrize("text", QUERIES)
def test_what_is_asked_of_segments_is_answered_as_of_memory(
    shared_server: ServerProcess, tables: tuple[str, str], text: str
) -> None:
    hot, cold = tables
    assert answered(shared_server, text.format(t=cold)) == answered(shared_server, text.format(t=hot))


@pytest.mark.parametrize("text", QUERIES)
def test_arrow_answers_have_no_views(shared_server: ServerProcess, tables: tuple[str, str], text: str) -> None:
    request = Request(f"{shared_server.http_url}/v1/sql", json.dumps({"sql": text.format(t=tables[1])}).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("Accept", "application/vnd.apache.arrow.stream")
    with urlopen(request) as response:
        schema = pa.ipc.open_stream(response.read()).schema
    assert "view" not in str(schema)
