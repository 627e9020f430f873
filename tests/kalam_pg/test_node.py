"""Node's two drivers, pg (with pg-cursor) and postgres.js, as programs use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

NODE = shutil.which("node")
PACKAGES = ("pg", "pg-cursor", "postgres")


def _is_there() -> bool:
    looked = "; ".join(f"require.resolve('{package}')" for package in PACKAGES)
    return NODE is not None and subprocess.run([NODE, "-e", looked], capture_output=True).returncode == 0


if not _is_there():
    pytest.skip("pg, pg-cursor and postgres of npm are not where NODE_PATH says", allow_module_level=True)

WITH_PG = """
const { Client, Pool } = require("pg"), Cursor = require("pg-cursor");
(async () => {
  const client = new Client({ connectionString: process.argv[2] });
  await client.connect();
  const told = {};
  const ask = async (text, values) => (await client.query(text, values)).rows;
  told.row = await ask("SELECT id, name, born, tall, price, flag, doc, raw, seen FROM node.people WHERE id = $1", [1]);
  const untyped = "SELECT name FROM node.people WHERE tall > $1 AND born < $2 AND flag = $3";
  told.untyped = await ask(untyped, [1.5, "1900-01-01", true]);
  told.list = await ask("SELECT id FROM node.people WHERE id = ANY($1) ORDER BY id", [[2, 1, 7]]);
  const one = "SELECT name FROM node.people WHERE id = $1";
  told.prepared = (await client.query({ name: "one", text: one, values: [2] })).rows;
  told.again = (await client.query({ name: "one", text: one, values: [1] })).rows;
  told.array = (await client.query({ text: "SELECT id, name FROM node.people ORDER BY id", rowMode: "array" })).rows;
  const inserted = await client.query(
    "INSERT INTO node.people (id, name, doc, raw, seen) VALUES ($1, $2, $3, $4, $5) RETURNING id, doc",
    [10, "Zoë ☃", { a: [1, 2] }, Buffer.from([0, 255]), new Date("2026-01-02T03:04:05.678Z")]);
  told.inserted = [inserted.command, inserted.rowCount, inserted.rows];
  told.back = await ask("SELECT name, doc, raw, seen FROM node.people WHERE id = 10");
  told.changed = (await client.query("UPDATE node.people SET name = 'x' WHERE id = 10")).rowCount;
  told.gone = (await client.query("DELETE FROM node.people WHERE id = 10")).rowCount;
  told.several = (await client.query("SELECT 1 AS a; SELECT 2 AS b")).map((result) => result.rows);
  told.errors = [];
  const again = "INSERT INTO node.people (id) VALUES (1)";
  for (const text of ["SELECT nothing FROM node.people", "SELECT 1 FROM node.none", "SELEC 1", "SELECT 1/0", again])
    await client.query(text).catch((error) => told.errors.push([error.code, error.severity]));
  const cursor = client.query(new Cursor("SELECT value AS n FROM generate_series(1, 1000)"));
  told.cursor = [(await cursor.read(3)).map((row) => Number(row.n))];
  told.cursor.push((await cursor.read(2000)).length, (await cursor.read(1)).length);
  await cursor.close();
  await client.query("BEGIN");
  await client.query("SELECT nothing").catch(() => null);
  await client.query("SELECT 1").catch((error) => { told.failed = error.code; });
  await client.query("ROLLBACK");
  const heard = new Promise((resolve) => client.on("notification", resolve));
  await client.query('LISTEN "kalam.shared.node.people"');
  const pool = new Pool({ connectionString: process.argv[2], max: 3 });
  const pooled = await Promise.all([1, 2, 1, 2, 1].map((id) => pool.query(one, [id])));
  told.pool = pooled.map((result) => result.rows[0].name);
  await pool.query("UPDATE node.people SET tall = 1.9 WHERE id = 2");
  const note = await heard;
  told.heard = [note.channel, JSON.parse(note.payload).op, JSON.parse(note.payload).row.tall];
  await pool.query("UPDATE node.people SET tall = 1.6 WHERE id = 2");
  await pool.end();
  await client.end();
  console.log(JSON.stringify(told));
})();
"""
WITH_POSTGRES_JS = """
const postgres = require("postgres");
(async () => {
  const sql = postgres(process.argv[2], { max: 2, onnotice: () => null });
  const told = {};
  const id = 1, names = ["Ada", "Carl"];
  told.row = await sql`SELECT id, name, born, tall, price, flag, doc, seen FROM node.people WHERE id = ${id}`;
  told.list = await sql`SELECT id FROM node.people WHERE name IN ${sql(names)} ORDER BY id`;
  told.any = await sql`SELECT id FROM node.people WHERE id = ANY(${[1, 2]}) ORDER BY id`;
  const rows = [1, 2, 3].map((n) => ({ id: 20 + n, name: `n${n}`, tall: n / 4 }));
  told.inserted = (await sql`INSERT INTO node.people ${sql(rows, "id", "name", "tall")}`).count;
  const change = { name: "other", flag: false };
  told.changed = (await sql`UPDATE node.people SET ${sql(change, "name", "flag")} WHERE id = 21`).count;
  told.back = await sql`SELECT id, name, tall, flag FROM node.people WHERE id > 20 ORDER BY id`;
  told.gone = (await sql`DELETE FROM node.people WHERE id > 20 RETURNING id`).map((row) => row.id).sort();
  told.pieces = [];
  await sql`SELECT value AS n FROM generate_series(1, 25)`.cursor(10, (piece) => { told.pieces.push(piece.length); });
  told.each = 0;
  await sql`SELECT value AS n FROM generate_series(1, 25)`.forEach(() => { told.each += 1; });
  told.error = await sql`SELECT nothing FROM node.people`.catch((error) => [error.code, error.severity]);
  told.block = await sql.begin(async (inner) => (await inner`SELECT count(*) AS n FROM node.people`)[0].n);
  const described = await sql`SELECT id, name FROM node.people WHERE id = ${id}`.describe();
  told.described = described.columns.map((column) => [column.name, column.type]);
  told.unsafe = (await sql.unsafe("SELECT 1 AS a; SELECT 2 AS b")).map((rows) => rows[0]);
  await sql.end();
  console.log(JSON.stringify(told));
})();
"""


@pytest.fixture(scope="module", autouse=True)
def tables(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as connection:
        connection.execute("CREATE NAMESPACE node")
        connection.execute(
            "CREATE SHARED TABLE node.people (id BIGINT PRIMARY KEY, name TEXT, born DATE, tall DOUBLE, "
            "price DECIMAL(10,2), flag BOOLEAN, doc JSON, raw BLOB, seen TIMESTAMP)"
        )
        connection.execute(
            "INSERT INTO node.people VALUES (1, 'Ada', '1815-12-10', 1.65, 12.30, true, '{\"a\": 1}', X'00ff', "
            "'1852-11-27 01:02:03.5Z'), (2, 'Carl', NULL, 1.6, NULL, false, NULL, NULL, NULL)"
        )


def told_by(program: str, url: str, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "program.cjs"
    file.write_text(program)
    environment = {**os.environ, "TZ": "UTC", "NODE_NO_WARNINGS": "1"}
    run = subprocess.run([str(NODE), file, url], capture_output=True, text=True, timeout=120, env=environment)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


ADA = {
    "id": "1",  # a BIGINT, which JavaScript's numbers do not hold
    "name": "Ada",
    "born": "1815-12-10T00:00:00.000Z",
    "tall": 1.65,
    "price": "12.30",
    "flag": True,
    "doc": {"a": 1},
    "seen": "1852-11-27T01:02:03.500Z",
}
BYTES = {"type": "Buffer", "data": [0, 255]}


def test_node_pg_asks_prepares_streams_and_listens(pg_url: str, tmp_path: Path) -> None:
    assert told_by(WITH_PG, pg_url, tmp_path) == {
        "row": [ADA | {"raw": BYTES}],
        "untyped": [{"name": "Ada"}],
        "list": [{"id": "1"}, {"id": "2"}],
        "prepared": [{"name": "Carl"}],
        "again": [{"name": "Ada"}],
        "array": [["1", "Ada"], ["2", "Carl"]],
        "inserted": ["INSERT", 1, [{"id": "10", "doc": {"a": [1, 2]}}]],
        "back": [{"name": "Zoë ☃", "doc": {"a": [1, 2]}, "raw": BYTES, "seen": "2026-01-02T03:04:05.678Z"}],
        "changed": 1,
        "gone": 1,
        "several": [[{"a": "1"}], [{"b": "2"}]],
        "errors": [[code, "ERROR"] for code in ("42703", "42P01", "42601", "22012", "23505")],
        "cursor": [[1, 2, 3], 997, 0],
        "failed": "25P02",
        "pool": ["Ada", "Carl", "Ada", "Carl", "Ada"],
        "heard": ["kalam.shared.node.people", "update", 1.9],
    }


def test_postgres_js_asks_inserts_and_streams(pg_url: str, tmp_path: Path) -> None:
    assert told_by(WITH_POSTGRES_JS, pg_url, tmp_path) == {
        "row": [ADA],
        "list": [{"id": "1"}, {"id": "2"}],
        "any": [{"id": "1"}, {"id": "2"}],
        "inserted": 3,
        "changed": 1,
        "back": [
            {"id": "21", "name": "other", "tall": 0.25, "flag": False},
            {"id": "22", "name": "n2", "tall": 0.5, "flag": None},
            {"id": "23", "name": "n3", "tall": 0.75, "flag": None},
        ],
        "gone": ["21", "22", "23"],
        "pieces": [10, 10, 5],
        "each": 25,
        "error": ["42703", "ERROR"],
        "block": "2",
        "described": [["id", 20], ["name", 25]],
        "unsafe": [{"a": "1"}, {"b": "2"}],
    }
