"""Rows that come in as messages, over NATS and HTTP, under policies; and what of a table goes out whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from patience import PATIENCE_S
from policy_server import PolicyServer, policy_server

FORMS = ["owner = CURRENT_USER()", "lower(owner) = CURRENT_USER()"]
GOOD, BAD, NONE = ({"id": 10, "owner": "ada"}, {"id": 11, "owner": "ben"}, {"id": 12, "owner": None})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PolicyServer]:
    """A SHARED and a STREAM table of which everybody may write their own rows."""
    async with policy_server(tmp_path) as server:
        await server.users("ada", "ben")
        await server.result(
            "admin",
            "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, owner TEXT, n INT);"
            "CREATE STREAM TABLE app.s (id INT, owner TEXT); INSERT INTO app.t VALUES (1, 'ada', 1), (2, 'ben', 2);"
            "GRANT ALL ON NAMESPACE app TO ada, ben",
        )
        for table in ("app.t", "app.s"):
            await server.policy(table, "true", name="all", to="admin")
            await server.secure(table)
        yield server


def bodies(rows: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    """The rows in each format, and what it is called."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, pa.schema([("id", pa.int32()), ("owner", pa.string())]))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return [
        ("application/json", json.dumps(rows).encode()),
        ("application/msgpack", msgspec.msgpack.encode(rows)),
        ("application/vnd.apache.arrow.stream", sink.getvalue().to_pybytes()),
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_messages_are_refused_whole_or_row_by_row(server: PolicyServer, form: str) -> None:
    for table in ("t", "s"):
        await server.policy(f"app.{table}", form)
    client = await server.connect("ada")

    async def send(table: str, payload: bytes, **headers: str) -> dict[str, Any]:
        subject = f"kalam.api.ada.insert.app.{table}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await client.request(subject, payload, headers=named or None, timeout=PATIENCE_S)
        return dict(json.loads(answer.data))

    for table in ("t", "s"):
        for kind, body in bodies([GOOD, BAD, NONE]):
            assert (await send(table, body, Content_Type=kind))["code"] == "permission_denied", kind
            answer = await send(table, body, Content_Type=kind, Kalam_On_Invalid="skip")
            assert (answer["rows"], answer["refused"]) == (1, 2), kind
            assert [(error["row"], error["code"]) for error in answer["errors"]] == [
                (2, "permission_denied"),
                (3, "permission_denied"),
            ]
            await server.result("admin", f"DELETE FROM app.{table} WHERE id = 10")
        # Single rows that come together are one batch, and each is judged for itself.
        rows = [{"id": 20 + number, "owner": "ada" if number % 3 else "ben"} for number in range(30)]
        answers = await asyncio.gather(*(send(table, json.dumps(row).encode()) for row in rows))
        assert [answer.get("code", "ok") for answer in answers] == [
            "ok" if row["owner"] == "ada" else "permission_denied" for row in rows
        ]
        stored = await server.rows("admin", f"SELECT id FROM app.{table} WHERE id >= 20 ORDER BY id")
        assert stored == [[row["id"]] for row in rows if row["owner"] == "ada"]
        # Many rows of Arrow, which stay columns.
        many = [{"id": 1_000 + number, "owner": "ada" if number != 700 else "ben"} for number in range(1_500)]
        kind, body = bodies(many)[-1]
        assert (await send(table, body, Content_Type=kind))["code"] == "permission_denied"
        answer = await send(table, body, Content_Type=kind, Kalam_On_Invalid="skip")
        assert (answer["rows"], answer["refused"], answer["errors"][0]["row"]) == (1_499, 1, 701)


@pytest.mark.parametrize("form", FORMS)
async def test_messages_that_merge_change_nothing_that_is_hidden(server: PolicyServer, form: str) -> None:
    await server.policy("app.t", form)
    client = await server.connect("ada")

    async def merge(rows: list[dict[str, Any]], conflict: str, **headers: str) -> dict[str, Any]:
        named = {"Kalam-On-Conflict": conflict} | {name.replace("_", "-"): value for name, value in headers.items()}
        payload = json.dumps(rows).encode()
        answer = await client.request("kalam.api.ada.insert.app.t", payload, headers=named, timeout=PATIENCE_S)
        return dict(json.loads(answer.data))

    mine, hers, new = {"id": 1, "n": 10}, {"id": 2, "n": 20}, {"id": 3, "owner": "ada", "n": 30}
    assert (await merge([mine, hers, new], "update"))["code"] == "permission_denied"
    assert (await merge([mine | {"owner": "ben"}], "update"))["code"] == "permission_denied"
    assert (await merge([{"id": 4, "owner": "ben"}], "nothing"))["code"] == "permission_denied"
    answer = await merge([mine, hers, new, {"id": 4, "owner": "ben"}, mine], "update", Kalam_On_Invalid="skip")
    assert (answer["rows"], answer["updated"], answer["refused"]) == (2, 1, 2)
    assert [error["row"] for error in answer["errors"]] == [2, 4]
    assert await server.rows("admin", "SELECT id, owner, n FROM app.t ORDER BY id") == [
        [1, "ada", 10],
        [2, "ben", 2],
        [3, "ada", 30],
    ]
    assert (await merge([hers | {"owner": "ada"}], "nothing"))["rows"] == 0


async def test_a_row_that_nobody_waits_for_is_told_to_its_sender_alone(server: PolicyServer) -> None:
    await server.policy("app.t", FORMS[0])
    ada, admin = await server.connect("ada"), await server.connect("admin")
    mine = await ada.subscribe("kalam.user.ada.app.t.rejected")
    event = await admin.subscribe("kalam.event.>")
    await ada.flush()
    await admin.flush()
    await ada.publish("kalam.api.ada.insert.app.t", json.dumps(BAD).encode())
    told = await mine.next_msg(timeout=PATIENCE_S)
    assert b"permission_denied" in told.data + str(told.headers).encode()
    noticed = await event.next_msg(timeout=PATIENCE_S)
    assert "rejected" in noticed.subject
    assert b"ben" not in noticed.data
    assert await server.rows("admin", "SELECT count(*) FROM app.t") == [[2]]


@pytest.mark.parametrize("form", FORMS)
async def test_uploads_and_exports_over_http(server: PolicyServer, form: str) -> None:
    await server.policy("app.t", form)
    url, headers = f"{server.running.http_url}/v1/tables/app/t/rows", server.headers("ada")

    async def upload(rows: list[dict[str, Any]], kind: str, body: bytes, **asked: str) -> dict[str, Any]:
        answer = await server.client.post(url, params=asked, content=body, headers=headers | {"Content-Type": kind})
        return dict(answer.json())

    for kind, body in bodies([GOOD, BAD]):
        assert (await upload([], kind, body))["code"] == "permission_denied", kind
        assert (await upload([], kind, body, dry_run="true"))["code"] == "permission_denied", kind
        for asked in ({"dry_run": "true"}, {}):
            answer = await upload([], kind, body, on_invalid="skip", **asked)
            assert (answer["rows"], answer["refused"]) == (1, 1), (kind, asked, answer)
        await server.result("admin", "DELETE FROM app.t WHERE id = 10")
    for accept in ("text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream"):
        sql = {"sql": "SELECT id, owner, 1 / (id - 2) AS n FROM app.t ORDER BY id"}
        answer = await server.client.post(
            f"{server.running.http_url}/v1/sql", json=sql, headers=headers | {"Accept": accept}
        )
        assert answer.status_code == 200, answer.text
        assert b"ben" not in answer.content
        assert b"ada" in answer.content
