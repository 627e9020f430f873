"""Views in *Tables* and *Live*: how materialized ones stand is shown, and nothing that views do not take."""

from __future__ import annotations

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def view(shared_server, namespace):
    shared_server.sql(
        f"CREATE TABLE {namespace}.t (id INT PRIMARY KEY, v INT); INSERT INTO {namespace}.t VALUES (1, 20);"
        f"CREATE MATERIALIZED VIEW {namespace}.doubled WITH (refresh = '0') AS SELECT id, v * 2 AS d FROM {namespace}.t"
    )
    return f"{namespace}.doubled"


def test_a_view_shows_how_it_stands_and_takes_no_rows(console, shared_server, view):
    namespace = view.split(".")[0]
    console.open("tables")
    row = console.page.get_by_role("row").filter(has=console.page.locator(f"a[href='#/tables/{namespace}/doubled']"))
    row.get_by_text("running", exact=True).wait_for()
    row.get_by_role("link", name="doubled").click()
    console.page.locator(".view-line").get_by_text("row-wise").wait_for()
    console.page.locator(".view-line").get_by_text("up to date").wait_for()
    console.page.get_by_role("gridcell", name="40", exact=True).wait_for()
    for name in ("Insert rows", "Edit", "Delete"):
        assert console.button(name).count() == 0, name
    for name, statement in (
        ("Refresh", f"REFRESH MATERIALIZED VIEW {view}"),
        ("Alter", f"ALTER MATERIALIZED VIEW {view} SET (refresh = '1s')"),
    ):
        console.button(name).click()
        dialog = console.page.get_by_role("dialog")
        assert dialog.get_by_role("textbox", name="Statement").input_value() == statement
        dialog.get_by_role("button", name="Run", exact=True).click()
        dialog.wait_for(state="detached")
    console.button("Drop view").click()
    console.page.get_by_role("dialog").get_by_role("textbox", name="Table name").fill(view)
    console.page.get_by_role("dialog").get_by_role("button", name="Drop", exact=True).click()
    console.page.wait_for_url("**/#/tables")
    assert shared_server.sql("SELECT count(*) FROM system.views WHERE namespace = $1", namespace) == [[0]]


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_a_view_shows_its_position_its_lag_its_cost_and_why_it_fails(
    open_console, shared_server, namespace, width, theme
):
    shared_server.sql(
        f"CREATE TABLE {namespace}.t (id INT PRIMARY KEY, v INT); INSERT INTO {namespace}.t VALUES (1, 20), (2, 10);"
        f"CREATE MATERIALIZED VIEW {namespace}.shares WITH (refresh = '0', key = 'id') AS "
        f"SELECT id, 100 / v AS share FROM {namespace}.t ORDER BY v DESC LIMIT 10"
    )
    console = open_console(shared_server, width=width, theme=theme)
    console.open(f"tables/{namespace}/shares")
    line = console.page.locator(".view-line")
    line.get_by_text("re-run", exact=True).wait_for()
    line.get_by_text(f"has {namespace}.t up to 2").wait_for()
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (3, 1)")
    line.get_by_text("1 refresh, ").get_by_text("of work").wait_for()
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (4, 0)")
    line.get_by_text("failed", exact=True).wait_for()
    line.get_by_text("1 change behind for").wait_for()
    line.get_by_text("invalid_value: Divide by zero").wait_for()
    console.page.get_by_role("gridcell", name="5", exact=True).wait_for()
    console.open("tables")
    row = console.page.get_by_role("row").filter(has=console.page.locator(f"a[href='#/tables/{namespace}/shares']"))
    row.get_by_text("failed", exact=True).wait_for()
    row.get_by_text("1 change behind", exact=True).wait_for()
    sticking_out = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert console.page.evaluate(sticking_out) == 0


def test_an_ephemeral_view_sleeps_until_it_is_watched(open_console, shared_server, namespace):
    shared_server.sql(
        f"CREATE TABLE {namespace}.t (id INT PRIMARY KEY, v INT); INSERT INTO {namespace}.t VALUES (1, 20);"
        f"CREATE EPHEMERAL MATERIALIZED VIEW {namespace}.total AS SELECT sum(v) AS total FROM {namespace}.t"
    )
    console = open_console(shared_server)
    console.open("tables")
    row = console.page.get_by_role("row").filter(has=console.page.locator(f"a[href='#/tables/{namespace}/total']"))
    row.get_by_text("asleep", exact=True).wait_for()
    row.get_by_role("link", name="total").click()
    line = console.page.locator(".view-line")
    line.get_by_text("kept in memory while somebody listens").wait_for()
    console.page.get_by_role("gridcell", name="20", exact=True).wait_for()
    for name in ("Insert rows", "Edit", "Delete", "Flush", "Compact"):
        assert console.button(name).count() == 0, name
    console.page.get_by_role("link", name="Watch it").click()
    console.button("Start").click()
    line.get_by_text("running", exact=True).wait_for()
    shared_server.sql(f"INSERT INTO {namespace}.t VALUES (2, 30)")
    console.page.get_by_role("region", name="Changes").get_by_text("50", exact=True).wait_for()


def test_a_stored_select_is_read_renamed_and_dropped_as_a_view(console, shared_server, namespace):
    shared_server.sql(
        f"CREATE TABLE {namespace}.t (id INT PRIMARY KEY); INSERT INTO {namespace}.t VALUES (41);"
        f"CREATE VIEW {namespace}.more AS SELECT id + 1 AS above FROM {namespace}.t"
    )
    console.open(f"tables/{namespace}/more")
    console.page.get_by_role("gridcell", name="42", exact=True).wait_for()
    for name in ("Insert rows", "Edit", "Delete", "Flush", "Compact", "Refresh"):
        assert console.button(name).count() == 0, name
    assert console.page.get_by_role("link", name="Watch it").count() == 0
    console.button("Alter").click()
    statement = console.page.get_by_role("dialog").get_by_role("textbox", name="Statement")
    assert statement.input_value() == f"ALTER VIEW {namespace}.more RENAME TO more_2"
    console.page.keyboard.press("Escape")
    console.button("Drop view").click()
    console.page.get_by_role("dialog").get_by_role("textbox", name="Table name").fill(f"{namespace}.more")
    console.page.get_by_role("dialog").get_by_role("button", name="Drop", exact=True).click()
    console.page.wait_for_url("**/#/tables")
    assert [row[1] for row in shared_server.sql(f"SHOW TABLES IN {namespace}")] == ["t"]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_live_query_on_a_view_shows_how_the_view_stands(open_console, shared_server, view, width):
    console = open_console(shared_server, width=width)
    console.open("live")
    console.page.get_by_role("textbox", name="Live query").fill(view)
    console.button("Start").click()
    console.page.locator(".view-line").get_by_text("running", exact=True).wait_for()
    shared_server.sql(f"INSERT INTO {view.split('.')[0]}.t VALUES (2, 30)")
    console.page.get_by_role("region", name="Changes").get_by_text("60", exact=True).wait_for()
    sticking_out = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert console.page.evaluate(sticking_out) == 0
