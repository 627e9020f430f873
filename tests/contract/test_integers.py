"""64-bit integers for clients whose numbers are exact up to 2^53 only: ``"integers": "text"`` and BIGINT_AS_TEXT."""

from __future__ import annotations

import json
from typing import Any

import pytest
from foreign_program import Program

LARGE, SMALL = 9_007_199_254_740_993, -(1 << 63)
"""The first integer that JavaScript reads as another one, and the least of all."""
NUMBERS = f"(1, {LARGE}, 1), (2, {SMALL}, 2), (3, NULL, NULL)"
ROWS = [["1", str(LARGE), 1], ["2", str(SMALL), 2], ["3", None, None]]


@pytest.fixture
async def table(program: Program, namespace: str) -> str:
    made = f"CREATE TABLE {namespace}.t (id BIGINT PRIMARY KEY, big BIGINT, small INT)"
    answer = await program.ask_sql(f"{made}; INSERT INTO {namespace}.t VALUES {NUMBERS}")
    assert answer.code is None
    return f"{namespace}.t"


async def texts(program: Program, sql: str, *params: Any) -> Any:
    """The results of a request over NATS that asks for text."""
    answer = await program.ask("kalam.api.ann.sql", {"sql": sql, "params": params, "integers": "text"})
    assert answer.code is None, answer.body
    return answer.json["results"]


async def test_sql_over_nats_shows_bigint_as_text(program: Program, table: str) -> None:
    [result] = await texts(program, f"SELECT * EXCEPT (_updated, _deleted) FROM {table} ORDER BY id")
    assert result["rows"] == ROWS
    assert [column["type"] for column in result["columns"]] == ["BIGINT", "BIGINT", "INT"]
    assert result["row_count"] == 3
    for key in (f"SELECT big FROM {table} WHERE id = 1", f"SELECT big FROM {table} WHERE id = $1"):
        for _ in range(2):  # the second time it is known as a query by key
            assert (await texts(program, key, *([1] if "$" in key else [])))[0]["rows"] == [[str(LARGE)]]
    [counted, inserted] = await texts(
        program, f"SELECT count(*) FROM {table}; INSERT INTO {table} VALUES (4, 4, 4) RETURNING id, small"
    )
    assert (counted["rows"], inserted["rows"], inserted["row_count"]) == ([["3"]], [["4", 4]], 1)


async def test_integers_inside_of_other_values_are_text_too(program: Program, table: str) -> None:
    query = f"SELECT array_agg(big ORDER BY id), struct(big, small) AS s FROM {table} WHERE id < 3 GROUP BY big, small"
    rows = (await texts(program, query))[0]["rows"]
    assert sorted(rows, key=repr) == [
        [[str(SMALL)], {"c0": str(SMALL), "c1": 2}],
        [[str(LARGE)], {"c0": str(LARGE), "c1": 1}],
    ]


async def test_without_asking_they_are_numbers(program: Program, table: str) -> None:
    for asked in ({}, {"integers": "number"}):
        answer = await program.ask("kalam.api.ann.sql", {"sql": f"SELECT big FROM {table} WHERE id = 1", **asked})
        assert answer.json["results"][0]["rows"] == [[LARGE]]


async def test_what_was_shown_as_text_is_taken_back(program: Program, table: str) -> None:
    key = {"id": str(LARGE), "big": str(SMALL)}
    stored = await program.insert(table, key, headers={"Kalam-Coerce": "lossless"})
    assert stored.json == {"rows": 1, "seq": 4}
    for place in ("id = $1", "id IN ($1)", f"id BETWEEN $1 AND '{LARGE}'"):
        [found] = await texts(program, f"SELECT id, big FROM {table} WHERE {place}", key["id"])
        assert found["rows"] == [[key["id"], key["big"]]], place
    [changed] = await texts(program, f"UPDATE {table} SET big = $2 WHERE id = $1 RETURNING big", key["id"], key["id"])
    assert changed["rows"] == [[key["id"]]]
    [inserted] = await texts(program, f"INSERT INTO {table} VALUES ($1, $1, 7) RETURNING id", str(LARGE + 1))
    assert inserted["rows"] == [[str(LARGE + 1)]]
    [deleted] = await texts(program, f"DELETE FROM {table} WHERE id = $1", key["id"])
    assert deleted["row_count"] == 1


@pytest.mark.parametrize(
    ("accept", "body", "rows"),
    [
        ("application/json; integers=text", {}, ROWS),
        ('text/csv;q=0.1, application/json;q=0.5;integers="text"', {}, ROWS),
        ("*/*;integers=text", {}, ROWS),
        (None, {"integers": "text"}, ROWS),
        ("application/json; integers=number", {}, [[1, LARGE, 1], [2, SMALL, 2], [3, None, None]]),
        ("application/json, text/csv; integers=text", {}, [[1, LARGE, 1], [2, SMALL, 2], [3, None, None]]),
    ],
)
async def test_http_is_asked_by_accept(
    program: Program, table: str, accept: str | None, body: dict[str, Any], rows: Any
) -> None:
    sql = json.dumps({"sql": f"SELECT id, big, small FROM {table} ORDER BY id", **body}).encode()
    status, _, found = await program.post(sql, {"Accept": accept} if accept else {})
    assert status == 200
    assert json.loads(found)["results"][0]["rows"] == rows


async def test_ndjson_and_csv(program: Program, table: str) -> None:
    sql = json.dumps({"sql": f"SELECT id, big, small FROM {table} ORDER BY id"}).encode()
    _, _, lines = await program.post(sql, {"Accept": "application/x-ndjson; integers=text"})
    assert [list(json.loads(line).values()) for line in lines.splitlines()] == ROWS
    _, _, lines = await program.post(sql, {"Accept": "text/csv; integers=text"})
    assert lines.splitlines()[1] == f"1,{LARGE},1".encode()


async def test_results_before_an_error_are_shown_as_asked(program: Program, table: str) -> None:
    sql = json.dumps({"sql": f"SELECT id FROM {table} WHERE id = 1; SELECT nothing FROM {table}"}).encode()
    status, _, body = await program.post(sql, {"Accept": "application/json; integers=text"})
    assert status == 400
    assert json.loads(body)["results"][0]["rows"] == [["1"]]


async def test_another_word_is_refused(program: Program, table: str) -> None:
    sql = f"SELECT * FROM {table}"
    assert (await program.ask("kalam.api.ann.sql", {"sql": sql, "integers": "texts"})).code == "invalid_value"
    assert (await program.ask("kalam.api.ann.live", {"sql": sql, "integers": "texts"})).code == "invalid_value"
    packed = {"sql": sql, "integers": "text", "format": "msgpack"}
    assert (await program.ask("kalam.api.ann.live", packed)).code == "invalid_value"
    status, _, body = await program.post(
        json.dumps({"sql": sql}).encode(), {"Accept": "application/json; integers=texts"}
    )
    assert (status, json.loads(body)["code"]) == (400, "invalid_value")


async def test_a_live_query_shows_rows_and_former_values_as_text(program: Program, table: str) -> None:
    asked = {"sql": f"SELECT id, big, small FROM {table} WHERE id < 3", "integers": "text"}
    live = (await program.ask("kalam.api.ann.live", asked)).json
    assert [column["type"] for column in live["columns"]] == ["BIGINT", "BIGINT", "INT"]
    heard = await program.listen(live["subject"])
    names = ["id", "big", "small"]
    assert (await heard()).json["rows"] == [dict(zip(names, row, strict=True)) for row in ROWS[:2]]
    assert (await heard()).json["seq"] == 3
    await program.ask_sql(f"UPDATE {table} SET big = {LARGE + 2} WHERE id = 1")
    row = {"id": "1", "big": str(LARGE + 2), "small": 1}
    [change] = (await heard()).json["changes"]
    assert change == {"op": "update", "seq": 4, "row": row, "old": {"big": str(LARGE)}}
    [shown] = (await program.ask_sql(f"SELECT options FROM system.live_queries WHERE id = '{live['id']}'")).json[
        "results"
    ][0]["rows"]
    assert json.loads(shown[0]) == {"format": "json", "integers": "text"}


async def test_events_of_a_shared_table_have_bigint_as_text_if_it_says_so(program: Program, namespace: str) -> None:
    table = f"{namespace}.shown"
    changes = await program.listen(f"kalam.shared.{table}.>")
    made = f"CREATE TABLE {table} (big BIGINT, small INT) WITH (bigint_as_text = true)"
    await program.ask_sql(f"{made}; INSERT INTO {table} VALUES ({LARGE}, 1); UPDATE {table} SET big = {SMALL}")
    inserted, updated = (await changes()).json, (await changes()).json
    [[row_id]] = (await program.ask_sql(f"SELECT _row_id FROM {table}")).json["results"][0]["rows"]
    shown = {name: inserted["rows"][0][name] for name in ("_row_id", "big", "small")}
    assert shown == {"_row_id": str(row_id), "big": str(LARGE), "small": 1}
    assert (inserted["seq"], updated["seq"]) == (1, 2)
    assert updated["old"] == [{"big": str(LARGE)}]
    # what an event shows goes in again, and a SELECT shows a number as ever
    assert (await program.insert(table, {"big": str(LARGE + 2), "small": 1})).json["rows"] == 1
    found = await program.ask_sql(f"SELECT big FROM {table} ORDER BY big")
    assert found.json["results"][0]["rows"] == [[SMALL], [LARGE + 2]]
    for wrong in ("5.0", "", " 5", "x", str(1 << 63), "1_0", 5.5):
        assert (await program.insert(table, {"big": wrong})).code == "invalid_value", wrong
    assert (await program.insert(table, {"small": "5"})).code == "invalid_value"  # which JavaScript reads right
    # a resume reads the feed back
    live = (await program.ask("kalam.api.ann.live", {"sql": f"SELECT big FROM {table}", "from_seq": 1})).json
    heard = await program.listen(live["subject"])
    while (message := (await heard()).json)["type"] != "changes":
        pass
    assert message["changes"][0]["row"] == {"big": SMALL}


async def test_a_stream_reads_its_events_whatever_the_option_was(program: Program, namespace: str) -> None:
    table = f"{namespace}.events"
    events = await program.listen(f"kalam.stream.{table}")
    await program.ask_sql(f"CREATE STREAM TABLE {table} (n INT, big BIGINT)")
    for number, option in enumerate(("false", "true", "false")):
        await program.ask_sql(f"ALTER TABLE {table} SET (bigint_as_text = {option})")
        assert (await program.insert(table, {"n": number, "big": LARGE})).code is None
        shown = str(LARGE) if option == "true" else LARGE
        assert (await events()).json == {"n": number, "big": shown}
    found = (await program.ask_sql(f"SELECT * FROM {table}")).json["results"][0]["rows"]
    assert found == [[0, LARGE], [1, LARGE], [2, LARGE]]
    options = (await program.ask_sql(f"SHOW CREATE TABLE {table}")).json["results"][0]["rows"][0]
    assert "BIGINT_AS_TEXT = false" in options[-1]
