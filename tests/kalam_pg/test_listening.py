"""LISTEN: a table's changes as notifications, between statements and outside of blocks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import psycopg
import pytest
from patience import PATIENCE_S


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE lis")
        connection.execute("CREATE SHARED TABLE lis.readings (a BIGINT, b TEXT, v DOUBLE, PRIMARY KEY (a, b))")
        connection.execute("CREATE USER TABLE lis.notes (id BIGINT PRIMARY KEY, t TEXT)")
        connection.execute("CREATE STREAM TABLE lis.clicks (id BIGINT)")


@pytest.fixture
def other(pg_url: str) -> Any:
    with psycopg.connect(pg_url, autocommit=True) as opened:
        yield opened


def heard(connection: psycopg.Connection, count: int) -> list[tuple[str, dict[str, Any]]]:
    found = connection.notifies(timeout=PATIENCE_S, stop_after=count)
    return [(each.channel, json.loads(each.payload)) for each in found]


def test_changes_of_a_table_are_heard_with_their_keys(
    connection: psycopg.Connection, other: psycopg.Connection
) -> None:
    connection.execute('LISTEN "kalam.shared.lis.readings"')
    other.execute("INSERT INTO lis.readings VALUES (1, 'x', 2.5)")
    other.execute("UPDATE lis.readings SET v = 3 WHERE a = 1 AND b = 'x'")
    other.execute("DELETE FROM lis.readings WHERE a = 1 AND b = 'x'")
    told = heard(connection, 3)
    assert {channel for channel, _ in told} == {"kalam.shared.lis.readings"}
    assert [(change["op"], change["key"]) for _, change in told] == [
        ("insert", [1, "x"]),
        ("update", [1, "x"]),
        ("delete", [1, "x"]),
    ]
    assert told[0][1]["row"]["v"] == 2.5
    assert told[0][1]["seq"] < told[1][1]["seq"]


def test_a_row_that_is_too_long_is_told_without_it(connection: psycopg.Connection, other: psycopg.Connection) -> None:
    connection.execute('LISTEN "kalam.shared.lis.readings"')
    other.execute("INSERT INTO lis.readings VALUES (2, 'y', 1)")
    other.execute("UPDATE lis.readings SET v = 4 WHERE a = 2 AND b = 'y'")
    other.execute("INSERT INTO lis.readings VALUES (3, %s, 1)", ("z" * 7_990,))
    [*_, (_, long)] = heard(connection, 3)
    assert "row" not in long
    assert long["key"] == [3, "z" * 7_990]


def test_nothing_is_told_within_a_block(connection: psycopg.Connection, other: psycopg.Connection) -> None:
    connection.execute('LISTEN "kalam.user.lis.notes"')
    connection.execute("BEGIN")
    other.execute("INSERT INTO lis.notes VALUES (1, 'mine')")
    assert heard_now(connection) == []
    connection.execute("COMMIT")
    [(channel, change)] = heard(connection, 1)
    assert (channel, change["key"], change["row"]["t"]) == ("kalam.user.lis.notes", [1], "mine")


def heard_now(connection: psycopg.Connection) -> list[Any]:
    connection.execute("SELECT 1")
    return list(connection.notifies(timeout=0))


def test_events_of_a_stream_table_have_no_key(connection: psycopg.Connection, other: psycopg.Connection) -> None:
    connection.execute('LISTEN "kalam.stream.lis.clicks"')
    other.execute("INSERT INTO lis.clicks VALUES (7)")
    [(_, change)] = heard(connection, 1)
    assert change["row"]["id"] == 7
    assert "key" not in change


def test_what_is_not_listened_to_any_more_is_not_heard(
    connection: psycopg.Connection, other: psycopg.Connection
) -> None:
    connection.execute('LISTEN "kalam.shared.lis.readings"')
    connection.execute('LISTEN "kalam.user.lis.notes"')
    connection.execute("UNLISTEN *")
    connection.execute('LISTEN "kalam.user.lis.notes"')
    other.execute("INSERT INTO lis.readings VALUES (10, 'q', 1)")
    other.execute("INSERT INTO lis.notes VALUES (10, 'heard')")
    assert [channel for channel, _ in heard(connection, 1)] == ["kalam.user.lis.notes"]


@pytest.mark.parametrize(
    ("channel", "sqlstate"),
    [
        ("kalam.shared.lis.nothing", "42P01"),
        ("kalam.user.lis.readings", "42P01"),
        ("anything", "0A000"),
        ("kalam.shared.readings", "0A000"),
    ],
)
def test_other_channels_are_refused(connection: psycopg.Connection, channel: str, sqlstate: str) -> None:
    with pytest.raises(psycopg.Error) as raised:
        connection.execute(f'LISTEN "{channel}"')
    assert raised.value.sqlstate == sqlstate


async def test_asyncpg_hears_what_it_listens_to(pg_url: str) -> None:
    client, told = await asyncpg.connect(pg_url), asyncio.Queue[str]()
    await client.add_listener("kalam.user.lis.notes", lambda *args: told.put_nowait(args[3]))
    await client.execute("INSERT INTO lis.notes VALUES (20, 'by myself')")
    async with asyncio.timeout(PATIENCE_S):
        assert json.loads(await told.get())["key"] == [20]
    await client.close()
