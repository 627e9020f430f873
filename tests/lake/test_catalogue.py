"""Kalam's HTTP as the read-only Iceberg REST catalogue, for the engines that attach to one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import chdb
import polars
import pytest
from lake_readers import duckdb_connection, in_folder, quiet, rows_of, selected
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import ForbiddenError, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.types import IntegerType, NestedField
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a SHARED table, of which rows were changed since they were flushed, and a USER table."""
    server = ServerProcess(tmp_path_factory.mktemp("lake") / "data").start()
    server.sql("CREATE NAMESPACE lab; CREATE TABLE lab.readings (id BIGINT PRIMARY KEY, v TEXT)")
    server.sql("CREATE USER TABLE lab.notes (id BIGINT PRIMARY KEY, v TEXT); INSERT INTO lab.notes VALUES (1, 'n')")
    server.sql("CREATE TABLE lab.empty (id BIGINT PRIMARY KEY); CREATE STREAM TABLE lab.clicks (page TEXT)")
    server.sql("CREATE TABLE lab.private (id BIGINT PRIMARY KEY) WITH (iceberg = false)")
    server.sql("INSERT INTO lab.readings SELECT value, 'v' FROM range(0, 1000); FLUSH ALL TABLES")
    server.sql("UPDATE lab.readings SET v = 'w' WHERE id < 10; DELETE FROM lab.readings WHERE id >= 990")
    server.sql("FLUSH ALL TABLES; REFRESH LAKE")
    yield server
    server.kill()


def answer(server: ServerProcess, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(f"{server.http_url}/iceberg{path}", body, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read() or b"null")


def catalogue_of(server: ServerProcess) -> RestCatalog:
    return RestCatalog("kalam", uri=f"{server.http_url}/iceberg")


def test_duckdb_attaches_to_it(server: ServerProcess) -> None:
    connection = duckdb_connection()
    attach = f"ATTACH '' AS kalam (TYPE iceberg, ENDPOINT '{server.http_url}/iceberg', AUTHORIZATION_TYPE 'none')"
    with connection.cursor() as own:
        own.execute(attach)
        try:
            seen = selected(server, "SELECT * FROM lab.readings")
            read = own.sql("SELECT * FROM kalam.lab.readings").to_arrow_table()
            assert rows_of(read, seen.schema, "id") == rows_of(seen, seen.schema, "id")
            assert own.sql("SELECT id, v, user_id FROM kalam.lab.notes").fetchall() == [(1, "n", "admin")]
            assert own.sql("SELECT count(*) FROM kalam.lab.empty").fetchall() == [(0,)]
            server.sql("INSERT INTO lab.readings VALUES (5000, 'new'); FLUSH TABLE lab.readings; REFRESH LAKE")
            assert own.sql("SELECT v FROM kalam.lab.readings WHERE id = 5000").fetchall() == [("new",)]
            with pytest.raises(Exception, match=r"read-only|not supported|403|Forbidden"):
                own.execute("INSERT INTO kalam.lab.readings VALUES (1, 'x', now(), 1)")
        finally:
            own.execute("DETACH kalam")


def test_pyiceberg_and_polars_load_tables_from_it(server: ServerProcess) -> None:
    catalogue = catalogue_of(server)
    assert catalogue.list_namespaces() == [("lab",)]
    assert sorted(catalogue.list_tables("lab")) == [("lab", "empty"), ("lab", "notes"), ("lab", "readings")]
    assert catalogue.table_exists("lab.readings")
    assert not catalogue.table_exists("lab.private")
    table = catalogue.load_table("lab.readings")
    seen = selected(server, "SELECT * FROM lab.readings")
    assert rows_of(table.scan().to_arrow(), seen.schema, "id") == rows_of(seen, seen.schema, "id")
    with quiet():
        assert rows_of(polars.scan_iceberg(table).collect().to_arrow(), seen.schema, "id") == rows_of(
            seen, seen.schema, "id"
        )
    assert catalogue.load_table("lab.empty").scan().to_arrow().num_rows == 0


def test_clickhouse_has_it_as_a_database(server: ServerProcess) -> None:
    with in_folder("/"):
        chdb_database = (
            f"CREATE DATABASE kalam ENGINE = DataLakeCatalog('{server.http_url}/iceberg') "
            "SETTINGS catalog_type = 'rest', warehouse = 'kalam', vended_credentials = false"
        )
        script = f"SET allow_database_iceberg = 1; {chdb_database}; SELECT count(), max(v) FROM kalam.`lab.readings`"
        rows = selected(server, "SELECT count(*) AS n, max(v) AS v FROM lab.readings")
        [(count, newest)] = [tuple(row.values()) for row in rows.to_pylist()]
        assert str(chdb.query(script, "TSV")) == f"{count}\t{newest}\n"


def test_nobody_writes_by_it(server: ServerProcess) -> None:
    catalogue = catalogue_of(server)
    with pytest.raises(Exception, match=r"read-only|does not support"):
        catalogue.create_table("lab.other", Schema(NestedField(1, "a", IntegerType())))
    for method, path in (
        ("POST", "/v1/namespaces"),
        ("DELETE", "/v1/namespaces/lab"),
        ("POST", "/v1/namespaces/lab/tables"),
        ("POST", "/v1/namespaces/lab/tables/readings"),
        ("DELETE", "/v1/namespaces/lab/tables/readings"),
        ("POST", "/v1/tables/rename"),
        ("POST", "/v1/transactions/commit"),
    ):
        status, problem = answer(server, path, method, b"{}")
        assert (status, problem["error"]["type"], problem["error"]["code"]) == (403, "ForbiddenException", 403), path
    assert server.sql("SELECT count(*) FROM lab.notes") == [[1]]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/namespaces/none", "NoSuchNamespaceException"),
        ("/v1/namespaces/none/tables", "NoSuchNamespaceException"),
        ("/v1/namespaces/none/tables/t", "NoSuchNamespaceException"),
        ("/v1/namespaces/lab/tables/none", "NoSuchTableException"),
        ("/v1/namespaces/lab/tables/clicks", "NoSuchTableException"),
        ("/v1/namespaces/lab/tables/private", "NoSuchTableException"),
        ("/v1/namespaces/lab/tables/%27;DROP", "NoSuchTableException"),
        ("/v1/namespaces/lab%1Fmore", "NoSuchNamespaceException"),
        ("/v1/nothing", "NoSuchEndpointException"),
        ("/", "NoSuchEndpointException"),
    ],
)
def test_what_is_not_there_is_an_error_of_the_specification(server: ServerProcess, path: str, kind: str) -> None:
    status, problem = answer(server, path)
    assert (status, problem["error"]["type"], problem["error"]["code"]) == (404, kind, 404)
    assert answer(server, path, "HEAD")[0] == 404


def test_pyiceberg_knows_its_errors(server: ServerProcess) -> None:
    catalogue = catalogue_of(server)
    with pytest.raises(NoSuchTableError):
        catalogue.load_table("lab.none")
    with pytest.raises(NoSuchNamespaceError):
        catalogue.list_tables("none")
    with pytest.raises((ForbiddenError, NotImplementedError)):
        catalogue.drop_table("lab.readings")


def test_the_answers_are_of_the_form_of_the_specification(server: ServerProcess) -> None:
    status, config = answer(server, "/v1/config?warehouse=x")
    assert status == 200
    assert config["defaults"] == config["overrides"] == {}
    assert "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}" in config["endpoints"]
    assert answer(server, "/v1/namespaces?parent=lab") == (200, {"namespaces": []})
    assert answer(server, "/v1/namespaces/LAB") == (200, {"namespace": ["lab"], "properties": {}})
    status, table = answer(server, "/v1/namespaces/lab/tables/readings")
    assert status == 200
    assert table["metadata-location"].endswith(".metadata.json")
    assert table["metadata"]["format-version"] == 2
    assert answer(server, "/v1/namespaces/lab/tables/readings", "HEAD") == (200, None)
