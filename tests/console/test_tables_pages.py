"""*Tables*: made, filled, changed, flushed and dropped by hand; each dialog shows the SQL first."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import nats
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def dialog(console):
    return console.page.get_by_role("dialog")


def run_dialog(console, name="Run"):
    dialog(console).get_by_role("button", name=name, exact=True).click()
    dialog(console).wait_for(state="detached")


@pytest.fixture
def table(shared_server, namespace):
    full = f"{namespace}.readings"
    shared_server.sql(f"CREATE TABLE {full} (id BIGINT PRIMARY KEY, sensor TEXT NOT NULL, celsius DOUBLE)")
    shared_server.sql(f"INSERT INTO {full} VALUES (1, 'roof', 21.5), (2, 'cellar', NULL)")
    return full


def test_a_table_is_created(console, shared_server, namespace):
    console.open("tables")
    console.button("Create table").click()
    statement = dialog(console).get_by_role("textbox", name="Statement")
    assert "CREATE SHARED TABLE" in statement.input_value()
    statement.fill(f"CREATE STREAM TABLE {namespace}.clicks (page TEXT)")
    run_dialog(console)
    console.page.get_by_role("link", name="clicks").first.wait_for()
    assert shared_server.sql(f"SELECT count(*) FROM {namespace}.clicks") == [[0]]


def test_a_statement_that_fails_stays_with_its_error(console, namespace):
    console.open("tables")
    console.button("Create table").click()
    dialog(console).get_by_role("textbox", name="Statement").fill(f"CREATE TABLE {namespace}.t (a NONSENSE)")
    dialog(console).get_by_role("button", name="Run", exact=True).click()
    dialog(console).get_by_role("alert").wait_for()
    console.page.keyboard.press("Escape")
    dialog(console).wait_for(state="detached")


def test_a_row_is_inserted_by_the_form(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    assert console.page.title() == f"{table} \N{EN DASH} Kalam"
    console.button("Insert rows").click()
    dialog(console).get_by_label("id", exact=True).fill("3")
    dialog(console).get_by_label("sensor", exact=True).fill("it's new")
    run_dialog(console, "Insert")
    assert shared_server.sql(f"SELECT sensor, celsius FROM {table} WHERE id = 3") == [["it's new", None]]
    console.page.get_by_text("it's new").first.wait_for()


def test_a_dropped_csv_is_judged_row_by_row_and_inserted(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    console.button("Insert rows").click()
    console.page.get_by_role("tab", name="File or paste").click()
    chooser = dialog(console).locator("input[type=file]")
    bad = b"id,sensor,celsius\n10,attic,1.5\n11,attic,warm\n1,taken,2\n"
    chooser.set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": bad})
    dialog(console).get_by_text("2 rows of the first 3 would be refused").wait_for()
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[2]]
    good = b"id,sensor,celsius\n10,attic,1.5\n11,attic,\n"
    chooser.set_input_files({"name": "rows.csv", "mimeType": "text/csv", "buffer": good})
    dialog(console).get_by_text("The first 2 rows would be taken").wait_for()
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[2]]
    run_dialog(console, "Insert")
    assert shared_server.sql(f"SELECT id, celsius FROM {table} WHERE id >= 10 ORDER BY id") == [[10, 1.5], [11, None]]


def test_a_row_is_edited_and_deleted_by_its_key(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    rows = console.page.get_by_role("grid", name=f"Rows of {table}").get_by_role("row")
    rows.filter(has_text="roof").get_by_role("button", name="Edit").click()
    dialog(console).get_by_label("celsius", exact=True).fill("22.5")
    statement = dialog(console).get_by_role("textbox", name="Statement")
    sync_api.expect(statement).to_have_value(f"UPDATE {table} SET celsius = 22.5 WHERE id = 1")
    run_dialog(console)
    assert shared_server.sql(f"SELECT celsius FROM {table} WHERE id = 1") == [[22.5]]
    rows.filter(has=console.page.get_by_text("22.5", exact=True)).wait_for()  # times of changes may hold it, too
    rows.filter(has_text="cellar").get_by_role("button", name="Delete").click()
    run_dialog(console)
    rows.filter(has_text="cellar").wait_for(state="detached")
    assert shared_server.sql(f"SELECT id FROM {table}") == [[1]]


@pytest.mark.parametrize("action", ["Flush", "Compact"])
def test_a_table_is_flushed_and_compacted(console, shared_server, table, action):
    console.open(f"tables/{table.replace('.', '/')}")
    console.button(action).click()
    assert dialog(console).get_by_role("textbox", name="Statement").input_value() == f"{action.upper()} TABLE {table}"
    run_dialog(console)
    console.page.get_by_role("status").get_by_text(action).or_(
        console.page.get_by_role("status").get_by_text("row")
    ).first.wait_for()


def test_a_table_is_altered(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    console.button("Alter").click()
    dialog(console).get_by_role("textbox", name="Statement").fill(f"ALTER TABLE {table} ADD COLUMN note TEXT")
    run_dialog(console)
    console.page.get_by_role("columnheader", name="note TEXT").wait_for()


def test_a_table_is_dropped_by_typing_its_name(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    console.button("Drop table").click()
    drop = dialog(console).get_by_role("button", name="Drop", exact=True)
    assert drop.is_disabled()
    dialog(console).get_by_role("textbox", name="Table name").fill(table[:-1])
    assert drop.is_disabled()
    dialog(console).get_by_role("textbox", name="Table name").fill(table)
    drop.click()
    console.page.wait_for_url("**/#/tables")
    assert shared_server.sql("SELECT count(*) FROM system.tables WHERE namespace = $1", table.split(".")[0]) == [[0]]


def test_its_subject_is_there_to_copy(console, table):
    console.open(f"tables/{table.replace('.', '/')}")
    text = console.page.locator("main").inner_text()
    assert f"kalam.shared.{table}.>" in text
    assert f"nats sub 'kalam.shared.{table}.>'" in text


def test_only_the_buttons_of_one_row_are_stops_of_the_tab_key(console, table):
    console.open(f"tables/{table.replace('.', '/')}")
    rows = console.page.get_by_role("grid", name=f"Rows of {table}")
    rows.get_by_text("cellar").wait_for()
    stops = "buttons => buttons.filter((button) => button.tabIndex === 0).length"
    assert rows.locator(".row-actions button").count() == 4
    assert rows.locator(".row-actions button").evaluate_all(stops) == 2


def test_a_namespace_without_tables_says_so(console, namespace):
    console.open("tables")
    space = console.page.locator("details").filter(has=console.page.get_by_text(namespace, exact=True))
    space.get_by_text("No table in it yet").wait_for()
    assert space.get_by_role("table").count() == 0


def test_rows_are_judged_as_they_are_pasted_and_dropped(console, shared_server, table):
    console.open(f"tables/{table.replace('.', '/')}")
    console.button("Insert rows").click()
    console.page.get_by_role("tab", name="File or paste").click()
    console.page.get_by_label("Or paste rows").fill("id,sensor\n20,attic\n21,\n")
    dialog(console).get_by_text("1 row of the first 2 would be refused").wait_for()
    transfer = console.page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(['{"id": 30, "sensor": "roof"}\\n'], "rows.ndjson"));
            return transfer;
        }"""
    )
    console.page.locator(".drop").dispatch_event("drop", {"dataTransfer": transfer})
    dialog(console).get_by_text("The row would be taken").wait_for()
    run_dialog(console, "Insert")
    assert shared_server.sql(f"SELECT sensor FROM {table} WHERE id >= 20") == [["roof"]]


async def make_stream(url, name):
    client = await nats.connect(url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.*"])
    await client.jetstream().publish(f"{name}.a", b'{"id": 7}')
    await client.close()


def test_a_stream_of_others_is_shown_and_only_read(console, shared_server, namespace):
    with ThreadPoolExecutor(1) as pool:  # an event loop runs in this thread already
        pool.submit(asyncio.run, make_stream(shared_server.nats_url, f"OF{namespace}")).result()
    shared_server.sql(f"CREATE STREAM TABLE {namespace}.t (id BIGINT) OVER STREAM 'OF{namespace}'")
    console.open(f"tables/{namespace}/t")
    console.page.get_by_role("grid").get_by_role("gridcell", name="7", exact=True).wait_for()
    console.button("Alter").wait_for()
    for name in ("Insert rows", "Flush", "Edit", "Delete"):
        assert console.button(name).count() == 0, name
