"""A statement past ``statement_rows_max`` heeds what a session of PostgreSQL's says of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from flush_pause import worker_process
from held_process import held
from server_process import ServerProcess

ROWS = 900
TIMES_S = (1, 2, 4, 8, 16, 32, 64)
"""A machine that is busy may need longer to come to the change's process, which is what is to be ended."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    opened = ServerProcess(tmp_path_factory.mktemp("large") / "data", flags=("--pg-port=0",))
    opened.start(KALAM_STATEMENT_ROWS_MAX="500")
    yield opened
    opened.kill()


def process_of(server: ServerProcess, change: Future[object]) -> int:
    """The process that changes rows; 0 where the statement ended before there was one."""
    while not change.done():
        with suppress(AssertionError):
            return worker_process(server, "change_worker")
    return 0


@pytest.mark.parametrize("text", ["UPDATE big.t SET n = n + 1", "DELETE FROM big.t"])
def test_statement_timeout_ends_a_large_change_and_nothing_is_changed(server: ServerProcess, text: str) -> None:
    url = str(server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"
    with psycopg.connect(url, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("CREATE NAMESPACE IF NOT EXISTS big")
        connection.execute("DROP TABLE IF EXISTS big.t")
        connection.execute("CREATE TABLE big.t (id INT PRIMARY KEY, n BIGINT)")
        for first in range(1, ROWS, 300):
            connection.execute(f"INSERT INTO big.t SELECT value, 0 FROM generate_series({first}, {first + 299})")
        for seconds in TIMES_S:
            connection.execute(f"SET statement_timeout = '{seconds}s'")
            change: Future[object] = pool.submit(connection.execute, text)
            if not (pid := process_of(server, change)):
                assert isinstance(change.exception(), psycopg.errors.QueryCanceled)
                continue
            with held(pid):
                failure = change.exception()
            assert isinstance(failure, psycopg.errors.QueryCanceled), failure
            assert "statement timeout" in str(failure)
            break
        else:
            pytest.fail("the change never came to a process")
        connection.execute("SET statement_timeout = 0")
        assert connection.execute("SELECT count(*), sum(n) FROM big.t").fetchone() == (ROWS, 0)
        assert connection.execute(text).rowcount == ROWS


def test_a_merge_that_only_inserts_may_meet_any_number_of_rows(server: ServerProcess) -> None:
    url = str(server.announcement["pg_url"]).replace("//", "//admin@") + "/kalam"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE IF NOT EXISTS big")
        connection.execute("CREATE TABLE big.met (id INT PRIMARY KEY, n INT)")
        for start in (0, 300, 600):
            rows = f"SELECT value, value FROM generate_series({start}, {start + 299})"
            connection.execute(f"INSERT INTO big.met {rows}")  # type: ignore[arg-type] # the texts are the test's own
        merged = "MERGE INTO big.met USING (SELECT value AS id FROM generate_series(0, 901)) AS s ON s.id = met.id "
        inserts = "WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, -1)"
        assert connection.execute(merged + "WHEN MATCHED THEN DO NOTHING " + inserts).rowcount == 2  # type: ignore[arg-type] # as above
        assert connection.execute(merged + inserts).rowcount == 0  # type: ignore[arg-type] # as above
        for text in (merged + "WHEN MATCHED THEN DELETE", merged + "WHEN MATCHED THEN UPDATE SET n = 1 " + inserts):
            with pytest.raises(psycopg.Error, match="statement_rows_max"):
                connection.execute(text)  # type: ignore[arg-type] # as above
        for unknown in ("WHEN MATCHED THEN DO NOTHING", inserts):
            with pytest.raises(psycopg.errors.UndefinedColumn):
                connection.execute(merged.replace("met.id", "met.unknown") + unknown)  # type: ignore[arg-type] # as above
        assert connection.execute("SELECT count(*), min(n) FROM big.met").fetchone() == (902, -1)
        connection.execute("DROP TABLE big.met")
