"""psycopg2, pg8000, SQLAlchemy with pandas over four drivers, and ADBC."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pg8000.dbapi
import psycopg
import psycopg2
import pyarrow as pa
import pytest
import sqlalchemy as sa
from adbc_driver_postgresql import dbapi as adbc
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

DRIVERS = ("psycopg", "psycopg2", "pg8000")


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE drv")
        connection.execute("CREATE SHARED TABLE drv.people (id BIGINT PRIMARY KEY, name TEXT NOT NULL, born DATE)")
        connection.execute("INSERT INTO drv.people VALUES (1, 'Ada', '1815-12-10'), (2, 'Carl', NULL)")


def test_psycopg2_asks_and_copies(pg_url: str) -> None:
    connection = psycopg2.connect(pg_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM drv.people WHERE id = %s", (1,))
        assert cursor.fetchall() == [("Ada",)]
    with connection, connection.cursor("named") as cursor:
        cursor.itersize = 1
        cursor.execute("SELECT id FROM drv.people ORDER BY id")
        assert list(cursor) == [(1,), (2,)]
    connection.close()


def test_pg8000_asks_inserts_and_rolls_back(pg_server: Any) -> None:
    port = int(pg_server.announcement["pg_url"].rsplit(":", 1)[1])
    connection = pg8000.dbapi.connect(user="admin", host="127.0.0.1", port=port, database="kalam")
    cursor = connection.cursor()
    cursor.execute("SELECT id, born FROM drv.people WHERE name = %s", ("Ada",))
    assert cursor.fetchall() == ([1, datetime.date(1815, 12, 10)],)
    cursor.execute("INSERT INTO drv.people VALUES (%s, %s, %s)", (20, "Eva", datetime.date(2000, 1, 1)))
    assert cursor.rowcount == 1
    connection.commit()
    with pytest.raises(pg8000.dbapi.DatabaseError):
        cursor.execute("SELECT nothing FROM drv.people")
    connection.rollback()
    cursor.execute("DELETE FROM drv.people WHERE id = 20")
    connection.commit()
    connection.close()


@pytest.fixture(params=DRIVERS)
def engine(request: pytest.FixtureRequest, pg_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(pg_url.replace("postgresql:", f"postgresql+{request.param}:"))
    yield made
    made.dispose()


def test_sqlalchemy_reads_the_tables_there_are(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert inspector.has_table("people", schema="drv")
    assert "people" in inspector.get_table_names(schema="drv")
    assert inspector.get_pk_constraint("people", schema="drv")["constrained_columns"] == ["id"]
    columns = {each["name"]: each for each in inspector.get_columns("people", schema="drv")}
    assert isinstance(columns["id"]["type"], sa.BIGINT)
    assert not columns["name"]["nullable"]
    reflected = sa.Table("people", sa.MetaData(), schema="drv", autoload_with=engine)
    with engine.connect() as connection:
        found = connection.execute(sa.select(reflected.c.name).where(reflected.c.id == 1)).scalar_one()
        assert found == "Ada"


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    __table_args__ = {"schema": "drv"}  # noqa: RUF012 - as SQLAlchemy has it
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    born: Mapped[datetime.date | None]


def test_sqlalchemys_orm_adds_changes_and_removes(engine: sa.Engine) -> None:
    with Session(engine) as session:
        session.add_all([Person(id=30 + n, name=f"p{n}") for n in range(3)])
        session.commit()
        found = session.scalars(sa.select(Person).where(Person.id >= 30).order_by(Person.id)).all()
        assert [each.name for each in found] == ["p0", "p1", "p2"]
        found[0].born = datetime.date(2001, 2, 3)
        for each in found[1:]:
            session.delete(each)
        session.commit()
        assert session.scalar(sa.select(Person.born).where(Person.id == 30)) == datetime.date(2001, 2, 3)
        session.delete(found[0])
        session.commit()


def test_pandas_reads_a_query_and_a_table(engine: sa.Engine) -> None:
    frame = pd.read_sql("SELECT id, name FROM drv.people WHERE id < 3 ORDER BY id", engine)
    assert frame.to_dict("list") == {"id": [1, 2], "name": ["Ada", "Carl"]}
    whole = pd.read_sql_table("people", engine, schema="drv", columns=["id", "born"])
    assert len(whole) >= 2


def test_pandas_writes_a_table(engine: sa.Engine) -> None:
    frame = pd.DataFrame({"n": range(500), "half": [n / 2 for n in range(500)], "name": [f"n{n}" for n in range(500)]})
    table = f"frames_{engine.driver}"
    frame.to_sql(table, engine, schema="drv", index=False)
    frame[:3].to_sql(table, engine, schema="drv", index=False, if_exists="append", method="multi")
    listed = f"SELECT n, half, name FROM drv.{table} ORDER BY n, name LIMIT 8"
    found = pd.read_sql(listed, engine)
    expected = pd.concat([frame, frame[:3]]).sort_values(["n", "name"])[:8].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


async def test_sqlalchemy_over_asyncpg(pg_url: str) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(pg_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        found = await connection.execute(sa.text("SELECT name FROM drv.people WHERE id = :id"), {"id": 2})
        assert found.scalar_one() == "Carl"
    await engine.dispose()


def test_adbc_reads_arrow_and_ingests_it(pg_url: str, connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE drv.taken (n BIGINT PRIMARY KEY, name TEXT)")
    with warnings.catch_warnings(), adbc.connect(pg_url, autocommit=True) as client, client.cursor() as cursor:
        warnings.simplefilter("ignore")
        cursor.execute("SELECT id, name FROM drv.people WHERE id < 3 ORDER BY id")
        assert cursor.fetch_arrow_table().to_pydict() == {"id": [1, 2], "name": ["Ada", "Carl"]}
        cursor.execute("SELECT id FROM drv.people WHERE id > 1000000")
        assert cursor.fetch_arrow_table().num_rows == 0
        rows = pa.table({"n": pa.array(range(1_000), pa.int64()), "name": [f"n{n}" for n in range(1_000)]})
        cursor.adbc_ingest("taken", rows, mode="append", db_schema_name="drv")
    assert connection.execute("SELECT count(*), max(name) FROM drv.taken").fetchone() == (1_000, "n999")
