"""*Live* and *Jobs*: changes as they arrive, work as it is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from flush_pause import paused_flush
from server_process import SqlFailed


def test_changes_arrive_and_are_paused_and_cleared(console, shared_server, namespace):
    table = f"{namespace}.readings"
    shared_server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, celsius DOUBLE)")
    shared_server.sql(f"INSERT INTO {table} VALUES (1, 20)")
    console.open("live")
    console.page.get_by_role("textbox", name="Live query").fill(table)
    console.button("Start").click()
    changes = console.page.get_by_role("region", name="Changes")
    changes.get_by_text("snapshot").wait_for()
    console.page.get_by_role("status").get_by_text("Listening").wait_for()
    shared_server.sql(f"INSERT INTO {table} VALUES (2, 30)")
    changes.get_by_text("insert", exact=True).wait_for()
    shared_server.sql(f"UPDATE {table} SET celsius = 31 WHERE id = 2")
    changes.locator("td.changed").get_by_text("31").wait_for()
    console.button("Pause").click()
    shared_server.sql(f"DELETE FROM {table} WHERE id = 1")
    console.page.get_by_role("status").get_by_text("3 changes").wait_for()
    assert changes.get_by_text("delete", exact=True).count() == 0
    console.button("Pause").click()
    changes.get_by_text("delete", exact=True).wait_for()
    console.button("Clear").click()
    changes.get_by_text("delete", exact=True).wait_for(state="detached")


def test_what_a_live_query_cannot_be_is_told(console):
    console.open("live")
    console.page.get_by_role("textbox", name="Live query").fill("SELECT count(*) FROM system.jobs")
    console.button("Start").click()
    console.page.get_by_role("alert").wait_for()


def test_a_live_query_goes_on_after_the_server_was_away(open_console, start_kalam):
    server = start_kalam()
    server.sql("CREATE NAMESPACE away; CREATE TABLE away.t (id BIGINT PRIMARY KEY)")
    console = open_console(server)
    console.open("live")
    console.page.get_by_role("textbox", name="Live query").fill("away.t")
    console.button("Start").click()
    console.page.get_by_role("status").get_by_text("Listening").wait_for()
    server.sql("INSERT INTO away.t VALUES (1)")
    changes = console.page.get_by_role("region", name="Changes")
    changes.get_by_text("insert", exact=True).wait_for()
    server.flags = (f"--http-port={server.http_url.rsplit(':', 1)[1]}",)
    server.kill()
    changes.get_by_text("the connection is lost").wait_for()
    server.restart()
    changes.get_by_text("resumed").wait_for()
    server.sql("INSERT INTO away.t VALUES (2)")
    console.page.get_by_role("status").get_by_text("2 changes").wait_for()
    console.complaints = [text for text in console.complaints if "ERR_" not in text]


def test_a_job_is_seen_to_finish(console, shared_server, namespace):
    table = f"{namespace}.readings"
    shared_server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    shared_server.sql(f"INSERT INTO {table} VALUES (1)")
    console.open("jobs")
    shared_server.sql(f"FLUSH TABLE {table}")
    row = console.page.get_by_role("row").filter(has_text=table)
    row.get_by_text("completed").wait_for()
    console.page.get_by_label("Table").select_option(table)
    console.page.get_by_label("Status").select_option("completed")
    assert console.page.get_by_role("row").count() == 2


def test_a_job_is_killed_and_offered_again(console, shared_server, namespace):
    table = f"{namespace}.readings"
    shared_server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, note TEXT)")
    shared_server.sql(f"INSERT INTO {table} SELECT value, 'n' || CAST(value AS TEXT) FROM range(0, 90000)")
    folder = Path(shared_server.data_dir) / "shared" / namespace / "readings"
    console.open("jobs")
    row = console.page.get_by_role("row").filter(has_text=table)
    with pytest.raises(SqlFailed, match="cancelled"), paused_flush(shared_server, table, folder):  # noqa: PT012 - raised at its end
        row.get_by_text("running").wait_for()
        row.get_by_role("button", name="Kill job").click()
        console.page.get_by_role("dialog").get_by_role("button", name="Run", exact=True).click()
        row.get_by_text("cancelled").wait_for()
    row.get_by_role("button", name="Retry job").click()
    console.page.get_by_role("dialog").get_by_role("button", name="Run", exact=True).click()
    row.get_by_text("completed").wait_for()
    assert shared_server.sql(f"SELECT count(*) FROM {table}") == [[90000]]


def test_the_page_is_quick_while_thousands_of_changes_come(console, shared_server, namespace):
    table = f"{namespace}.readings"
    shared_server.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, note TEXT)")
    console.open("live")
    console.page.get_by_role("textbox", name="Live query").fill(table)
    console.button("Start").click()
    status = console.page.get_by_role("status")
    status.get_by_text("Listening").wait_for()
    for number in range(20):
        first = 1000 * number
        shared_server.sql(f"INSERT INTO {table} SELECT value, 'note' FROM range({first}, {first + 1000})")
    status.get_by_text("20,000 changes").wait_for()
    status.get_by_text("are shown").wait_for()
    assert console.page.get_by_role("region", name="Changes").get_by_role("row").count() < 200
    console.button("Clear").click()
    status.get_by_text("0 changes").wait_for()


def test_the_earthquakes_are_loaded_and_watched_in_three_clicks(open_console, start_kalam):
    server = start_kalam()
    console = open_console(server)
    console.page.goto(f"{server.http_url}/")
    console.button("Load the earthquakes").click()
    console.page.wait_for_url("**/#/live**")
    console.page.get_by_role("region", name="Changes").get_by_text("insert", exact=True).first.wait_for()
    assert server.sql("SELECT count(*) > 0 FROM quakes.latest") == [[True]]
