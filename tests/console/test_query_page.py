"""*Query*: what a person types, runs, reads, draws, downloads and stops."""

from __future__ import annotations

import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def test_a_query_is_completed_run_and_read(console, shared_server, namespace):
    shared_server.sql(f"CREATE TABLE {namespace}.readings (id BIGINT PRIMARY KEY, celsius DOUBLE)")
    shared_server.sql(f"INSERT INTO {namespace}.readings VALUES (9007199254740993, 21.5), (2, NULL)")
    console.open("query")
    editor = console.page.get_by_role("textbox", name="SQL", exact=True)
    editor.click()
    console.page.keyboard.type(f"SELECT * FROM {namespace}.rea")
    option = console.page.get_by_role("option", name="readings").first
    option.click()
    console.page.keyboard.press("Control+Enter")
    grid = console.page.get_by_role("grid", name="Results")
    grid.get_by_text("9007199254740993").wait_for()
    assert grid.get_by_text("NULL").count() == 1
    assert console.page.get_by_text("2 rows").is_visible()


def test_a_fraction_of_many_digits_is_a_number_and_a_long_integer_keeps_its_digits(console):
    console.open("query")
    console.run("SELECT CAST(1 AS DOUBLE) / 3 AS third, 1.5e-7 AS small, 9007199254740993 AS big")
    grid = console.page.get_by_role("grid", name="Results")
    grid.get_by_text("0.3333333333333333", exact=True).wait_for()
    grid.get_by_text("9007199254740993", exact=True).wait_for()


def test_the_selection_runs_alone_and_each_statement_has_a_tab(console):
    console.open("query")
    console.run("SELECT 1 AS one; SELECT 2 AS two")
    tabs = console.page.get_by_role("tab")
    assert tabs.all_inner_texts() == ["1", "2"]
    tabs.first.click()
    assert console.page.get_by_role("columnheader", name="one").is_visible()
    editor = console.page.get_by_role("textbox", name="SQL", exact=True)
    editor.fill("SELECT 1 AS one")
    editor.press("Control+Home")
    for _ in range(len("SELECT 1")):
        console.page.keyboard.press("Shift+ArrowRight")
    console.page.keyboard.press("Control+Enter")
    console.page.get_by_role("columnheader", name="one").wait_for(state="detached")


def test_an_error_is_told_and_marked_in_the_editor(console):
    console.open("query")
    editor = console.type_sql("SELECT 1 AS one\nFORM nothing")
    console.button("Run").click()
    alert = console.page.get_by_role("alert")
    alert.wait_for()
    assert "syntax_error" in alert.inner_text()
    assert editor.get_attribute("aria-invalid") == "true"
    editor.fill("SELECT 1")
    console.button("Run").click()
    console.page.get_by_role("grid", name="Results").wait_for()
    assert editor.get_attribute("aria-invalid") == "false"
    assert alert.count() == 0


def test_a_result_of_100_000_rows_is_scrolled(console):
    console.open("query")
    console.run("SELECT value AS n, value * 2 AS twice FROM generate_series(1, 100000) ORDER BY 1")
    grid = console.page.get_by_role("grid", name="Results")
    assert grid.get_attribute("aria-rowcount") == "100001"
    assert grid.get_by_role("row").count() < 100
    grid.evaluate("element => { element.scrollTop = element.scrollHeight; }")
    grid.get_by_text("200000", exact=True).wait_for()
    assert grid.get_by_role("row").count() < 100


def test_a_result_is_drawn_and_sorted(console):
    console.open("query")
    console.run("SELECT 'a' AS name, 3 AS n UNION ALL SELECT 'b', 1 UNION ALL SELECT 'c', 2 ORDER BY name")
    console.button("Chart").click()
    console.page.get_by_role("img", name="Chart of n").wait_for()
    grid = console.page.get_by_role("grid", name="Results")
    grid.get_by_role("columnheader", name="n BIGINT").get_by_role("button").click()
    column = grid.locator("[data-column='1']")
    assert column.all_inner_texts() == ["1", "2", "3"]


FORMS = [("CSV", "csv"), ("NDJSON", "ndjson"), ("Arrow", "arrow"), ("Parquet", "parquet")]


@pytest.mark.parametrize(("form", "ending"), FORMS)
def test_a_result_is_downloaded(console, tmp_path, form, ending):
    console.open("query")
    console.run("SELECT 1 AS one, 'x' AS text")
    console.button("Download").click()
    with console.page.expect_download() as downloading:
        console.button(form).click()
    file = tmp_path / downloading.value.suggested_filename
    assert file.suffix == f".{ending}"
    downloading.value.save_as(file)
    match ending:
        case "csv":
            assert file.read_text() == '"one","text"\n1,"x"\n'
        case "ndjson":
            assert file.read_text() == '{"one":1,"text":"x"}\n'
        case "arrow":
            assert pa.ipc.open_stream(file.read_bytes()).read_all().to_pylist() == [{"one": 1, "text": "x"}]
        case _:
            assert pq.read_table(file).to_pylist() == [{"one": 1, "text": "x"}]


def test_a_running_query_is_cancelled(console):
    console.open("query")
    endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b"
    console.type_sql(f"{endless} WHERE a.value < b.value")
    console.button("Run").click()
    console.button("Cancel").click()
    alert = console.page.get_by_role("alert")
    alert.wait_for()
    assert "cancelled" in alert.inner_text()
    assert console.button("Run").is_enabled()


def test_parameters_are_values(console):
    console.open("query")
    console.type_sql("SELECT $1 AS a, $2 AS b")
    console.page.get_by_label("$1").fill("7")
    console.page.get_by_label("$2").fill("it's")
    console.button("Run").click()
    grid = console.page.get_by_role("grid", name="Results")
    grid.get_by_text("it's").wait_for()
    assert grid.get_by_text("7", exact=True).is_visible()


def test_what_was_run_is_in_the_history_and_can_be_saved(console):
    console.open("query")
    console.run("SELECT 41 AS early")
    console.run("SELECT 42 AS late")
    console.page.get_by_text("History", exact=True).click()
    console.page.get_by_role("button", name="SELECT 41 AS early").click()
    editor = console.page.get_by_role("textbox", name="SQL", exact=True)
    assert "41" in editor.inner_text()
    console.page.get_by_text("Saved", exact=True).click()
    console.page.get_by_label("Name").fill("answer")
    console.button("Save").click()
    console.page.reload()
    console.page.get_by_text("Saved", exact=True).click()
    console.page.get_by_role("button", name="answer", exact=True).wait_for()


def test_a_server_that_goes_is_told_and_what_was_typed_stays(open_console, start_kalam):
    server = start_kalam()
    console = open_console(server)
    console.open("query")
    console.type_sql("SELECT 1 AS still_here")
    port = server.http_url.rsplit(":", 1)[1]
    server.kill()
    console.button("Run").click()
    alert = console.page.get_by_role("alert")
    alert.get_by_text("Server gone").wait_for()
    server.flags = (f"--http-port={port}",)
    thread = threading.Thread(target=server.restart)
    thread.start()
    alert.wait_for(state="detached")
    thread.join()
    console.button("Run").click()
    console.page.get_by_role("columnheader", name="still_here").wait_for()
    console.complaints = [text for text in console.complaints if "ERR_CONNECTION" not in text]


def test_a_name_that_is_not_there_is_marked_where_it_stands(console, shared_server, namespace):
    shared_server.sql(f"CREATE TABLE {namespace}.t (id BIGINT PRIMARY KEY, celsius DOUBLE)")
    console.open("query")
    console.type_sql(f"SELECT id,\n  'celcius', celcius\nFROM {namespace}.t")
    console.button("Run").click()
    console.page.get_by_role("alert").get_by_text("did you mean celsius?").wait_for()
    fault = console.page.locator(".cm-fault")
    assert fault.inner_text() == "celcius"
    assert fault.evaluate("element => element.previousSibling.textContent").endswith(", ")


def test_a_query_is_explained(console):
    console.open("query")
    console.type_sql("SELECT count(*) FROM generate_series(1, 10)")
    console.button("Explain").click()
    console.page.get_by_role("grid", name="Results").wait_for()
    assert "AggregateExec" in console.page.locator("pre[aria-label=physical_plan]").inner_text()


def test_a_menu_closes_at_escape_and_at_a_click_elsewhere(console):
    console.open("query")
    console.run("SELECT 1 AS one")
    history, saved = (console.page.get_by_text(name, exact=True) for name in ("History", "Saved"))
    entry = console.page.get_by_role("button", name="SELECT 1 AS one")
    history.click()
    entry.wait_for()
    console.page.keyboard.press("Escape")
    entry.wait_for(state="hidden")
    history.click()
    entry.wait_for()
    saved.click()
    entry.wait_for(state="hidden")
    console.page.get_by_label("Name").wait_for()
    console.page.get_by_role("heading", name="Query").click()
    console.page.get_by_label("Name").wait_for(state="hidden")


def test_a_long_value_is_shown_whole_and_left_by_escape(console):
    console.open("query")
    console.run("SELECT repeat('word ', 500) AS long, 1 AS n UNION ALL SELECT 'short', 2 ORDER BY n")
    grid = console.page.get_by_role("grid", name="Results")
    cell = grid.locator("[data-row='0'][data-column='0']")
    cell.focus()
    console.page.keyboard.press("Enter")
    whole = console.page.get_by_role("region", name="Whole value")
    assert whole.inner_text().count("word") == 500
    assert grid.get_by_text("short").is_visible()
    console.page.keyboard.press("Escape")
    whole.wait_for(state="detached")
    assert cell.evaluate("element => element === document.activeElement")
    console.button("Show cell").click()
    whole.wait_for()


def test_the_grid_is_reached_by_tab_wherever_it_was_scrolled(console):
    console.open("query")
    console.run("SELECT value AS n FROM generate_series(1, 5000) ORDER BY 1")
    grid = console.page.get_by_role("grid", name="Results")
    grid.evaluate("element => { element.scrollTop = 100000; }")
    grid.locator("[data-row='3580']").wait_for()
    assert grid.locator("[data-row][tabindex='0']").count() == 1


def test_the_second_of_two_results_has_a_cell_to_go_to(console):
    console.open("query")
    console.run("SELECT 'only' AS one; SELECT value AS n FROM generate_series(1, 50) ORDER BY 1")
    grid = console.page.get_by_role("grid", name="Results")
    grid.locator("[data-row='0'][data-column='0']").focus()
    console.page.keyboard.press("Control+End")
    console.page.get_by_role("tab", name="1", exact=True).click()
    grid.get_by_text("only").wait_for()
    assert grid.locator("[data-row='0'][tabindex='0']").count() == 1
