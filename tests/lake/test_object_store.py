"""The lake of a table whose LOCATION is on S3: each engine reads it with its own access to the store."""

from __future__ import annotations

from collections.abc import Iterator

import chdb
import polars
import pyarrow as pa
import pytest
from lake_readers import duckdb_connection, quiet, rows_of, selected
from object_store import BUCKET, S3, s3_server
from pyiceberg.catalog.rest import RestCatalog
from server_process import ServerProcess


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("moto")) as s3:
        yield s3


@pytest.fixture(scope="module")
def server(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a SHARED and a USER table on S3, whose rows were changed after they were flushed."""
    server = ServerProcess(tmp_path_factory.mktemp("kalam") / "data", environment=s3.environment).start()
    tables = f"s3://{BUCKET}/tables"
    server.sql(f"CREATE NAMESPACE r; CREATE TABLE r.t (id BIGINT PRIMARY KEY, v TEXT) WITH (LOCATION = '{tables}/t')")
    server.sql(f"CREATE USER TABLE r.u (id BIGINT PRIMARY KEY) WITH (LOCATION = '{tables}/u/${{user_id}}')")
    server.sql("INSERT INTO r.t SELECT value, 'v' FROM range(0, 1000); INSERT INTO r.u VALUES (1); FLUSH ALL TABLES")
    server.sql("UPDATE r.t SET v = 'w' WHERE id < 10; DELETE FROM r.t WHERE id >= 990; FLUSH ALL TABLES; REFRESH LAKE")
    yield server
    server.kill()


def read_by_all(server: ServerProcess, s3: S3, name: str) -> dict[str, pa.Table]:
    namespace, table = name.split(".")
    host = s3.url.removeprefix("http://")
    options = {
        "s3.endpoint": s3.url,
        "s3.access-key-id": "test",
        "s3.secret-access-key": "test",
        "s3.region": "us-east-1",
    }
    loaded = RestCatalog("kalam", uri=f"{server.http_url}/iceberg", **options).load_table(name)
    place = loaded.location().removeprefix("s3://")
    with duckdb_connection().cursor() as duck, quiet():
        duck.execute(
            "CREATE OR REPLACE SECRET (TYPE s3, KEY_ID 'test', SECRET 'test', REGION 'us-east-1', "
            f"ENDPOINT '{host}', USE_SSL false, URL_STYLE 'path')"
        )
        duck.execute(
            f"ATTACH '' AS far (TYPE iceberg, ENDPOINT '{server.http_url}/iceberg', AUTHORIZATION_TYPE 'none')"
        )
        try:
            by_duckdb = duck.sql(f"SELECT * FROM far.{namespace}.{table}").to_arrow_table()
        finally:
            duck.execute("DETACH far")
        answer = chdb.query(f"SELECT * FROM icebergS3('{s3.url}/{place}/', 'test', 'test')", "Arrow").bytes()
        store = {
            "aws_endpoint_url": s3.url,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
            "aws_allow_http": "true",
        }
        return {
            "duckdb": by_duckdb,
            "clickhouse": pa.ipc.open_file(answer).read_all(),
            "pyiceberg": loaded.scan().to_arrow(),
            "polars": polars.scan_iceberg(loaded, storage_options=store).collect().to_arrow(),
        }


def test_every_engine_reads_it_there(server: ServerProcess, s3: S3) -> None:
    seen = selected(server, "SELECT * FROM r.t")
    wanted = rows_of(seen, seen.schema, "id")
    assert len(wanted) == 990
    for engine, read in read_by_all(server, s3, "r.t").items():
        assert rows_of(read, seen.schema, "id") == wanted, engine
    for engine, read in read_by_all(server, s3, "r.u").items():
        assert read.select(["id", "user_id"]).to_pylist() == [{"id": 1, "user_id": "admin"}], engine


def test_it_is_made_anew_there_when_it_was_deleted(server: ServerProcess, s3: S3) -> None:
    assert [name for name in s3.names("tables/t/iceberg") if name.endswith(".metadata.json")]
    s3.files.rm(f"{BUCKET}/tables/t/iceberg", recursive=True)
    server.sql("REFRESH LAKE FOR TABLE r.t; COMPACT TABLE r.t; REFRESH LAKE FOR TABLE r.t")
    seen = selected(server, "SELECT * FROM r.t")
    for engine, read in read_by_all(server, s3, "r.t").items():
        assert rows_of(read, seen.schema, "id") == rows_of(seen, seen.schema, "id"), engine


def test_a_table_that_is_dropped_leaves_nothing_there(server: ServerProcess, s3: S3) -> None:
    server.sql(f"CREATE TABLE r.d (id INT PRIMARY KEY) WITH (LOCATION = 's3://{BUCKET}/tables/d')")
    server.sql("INSERT INTO r.d VALUES (1); FLUSH TABLE r.d; REFRESH LAKE FOR TABLE r.d")
    assert s3.names("tables/d/iceberg")
    server.sql("DROP TABLE r.d")
    assert [name for name in s3.names("tables/d") if not name.endswith("kalam-data-id")] == []
