"""Queries of SQLite's sqllogictest are answered as their files expect.

The files are not part of Kalam: ``KALAM_TEST_SQLLOGICTEST`` names the directory in which they are (``test`` of a copy
of sqllogictest, with ``select1.test`` and the others). Their tables are SHARED tables; what ``*`` shows of Kalam's
own columns is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from logic_tests import Record, records
from server_process import ServerProcess, SqlFailed

DIRECTORY = os.environ.get("KALAM_TEST_SQLLOGICTEST")
FILES = {"select1": 1000, "select2": 1000, "select3": 3320, "select4": 2832, "select5": 732}
"""How many queries there are in each."""
OWN_COLUMNS = {"_row_id", "_updated", "_deleted"}
WRITTEN_HERE = """
# hash-threshold is about printing
hash-threshold 8

statement ok
CREATE TABLE sizes(a INTEGER, b VARCHAR(30), c DOUBLE)

statement ok
INSERT INTO sizes VALUES(3,'three',0.25),(1,'',1e3),(NULL,'tab	here',NULL)

onlyif mysql # never asked
query I nosort
SELECT 4 DIV 0
----
1

skipif mysql # has no such thing
query IT rowsort
SELECT a + 1, b FROM sizes
----
2
(empty)
4
three
NULL
tab@here

query R valuesort
SELECT c FROM sizes
----
0.250
1000.000
NULL

query I nosort
SELECT a FROM sizes ORDER BY a NULLS FIRST
----
NULL
1
3

query TTTT rowsort label-1
SELECT * FROM sizes JOIN (SELECT 'x' AS x) AS one ON a = 3
----
3
three
0.25
x

query III nosort
SELECT a AS n, 7 AS m, sum(ALL + a) OVER () FROM sizes WHERE a > 1 UNION ALL SELECT 1, 2, 3 ORDER BY 1
----
6 values hashing to e273edf84149fc009f06115af20a4a05

statement error
SELECT nothing FROM sizes

halt

query I nosort
SELECT 1
----
2
"""


@pytest.fixture(scope="module")
def server(shared_server: ServerProcess) -> ServerProcess:
    return shared_server


def test_a_file_of_the_format_is_read_and_compared(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "sizes.test"
    file.write_text(WRITTEN_HERE)
    read = list(records(file))
    assert len([record for record in read if record.types]) == 5
    assert list(wrong_answers(server, file, "sizes_right")) == []
    file.write_text(WRITTEN_HERE.replace("1000.000", "1000.001").replace("tab@", "tab").replace("e273", "e274"))
    lines = WRITTEN_HERE.split("\n")
    wrong = [
        lines.index(line) + 1 for line in ("skipif mysql # has no such thing", "query R valuesort", "query III nosort")
    ]
    told = list(wrong_answers(server, file, "sizes_wrong"))
    assert [fault.partition(":")[0] for fault in told] == [f"line {line}" for line in wrong]


@pytest.mark.skipif(
    DIRECTORY is None, reason="KALAM_TEST_SQLLOGICTEST names no directory with select1.test to select5.test"
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_all_queries_of_a_file_are_answered(server: ServerProcess, name: str) -> None:
    file = Path(DIRECTORY or "") / f"{name}.test"
    assert len([record for record in records(file) if record.types]) == FILES[name]
    assert list(wrong_answers(server, file, f"logic_{name}")) == []


def wrong_answers(server: ServerProcess, file: Path, namespace: str) -> Iterator[str]:
    """What of a file does not come out as it says."""
    server.sql(f"CREATE NAMESPACE {namespace}")
    ask = partial(_fault, server, namespace)
    queries = []
    for record in records(file):
        if record.types:
            queries.append(record)
        elif not record.text.startswith("CREATE INDEX") and (told := ask(record)):
            yield told
    with ThreadPoolExecutor(4) as threads:
        yield from filter(None, threads.map(ask, queries))


def _fault(server: ServerProcess, namespace: str, record: Record) -> str | None:
    try:
        result = server.results(record.text, namespace=namespace)[-1]
    except SqlFailed as exc:
        return None if record.fails else f"line {record.line}: {exc}"
    if not record.types:
        return f"line {record.line}: no error" if record.fails else None
    shown = [place for place, column in enumerate(result["columns"]) if column["name"] not in OWN_COLUMNS]
    rows = [[row[place] for place in shown] for row in result["rows"]]
    return None if record.is_answered_by(rows) else f"line {record.line}: {record.text!r} gives {rows[:5]}"
