"""What a person does without a mouse, and what one who listens is told."""

from __future__ import annotations

import time

from patience import PATIENCE_S

FOCUSED = """() => {
    let at = document.activeElement;
    while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
    const label = at?.labels?.[0]?.firstChild?.textContent;
    return (at?.getAttribute("aria-label") || label || at?.innerText || at?.tagName).trim().slice(0, 40);
}"""
STOPS_MAX = 80
OPENINGS = 20
"""A key that comes right after a dialog has closed was lost about one time in ten."""


def tab_to(console, name, key="Tab"):
    """Press Tab until the element of that name has the focus; fails where none ever has."""
    met = []
    for _ in range(STOPS_MAX):
        console.page.keyboard.press(key)
        met.append(console.page.evaluate(FOCUSED))
        if met[-1] == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}, but {met}")


def wait_focus(console, name):
    """Wait until the element of that name has the focus: what closes gives it back a moment after it is gone."""
    deadline = time.monotonic() + PATIENCE_S
    while (focused := console.page.evaluate(FOCUSED)) != name:
        assert time.monotonic() < deadline, focused
        console.page.wait_for_timeout(10)


def test_a_query_is_run_and_read(console, shared_server, namespace):
    shared_server.sql(f"CREATE TABLE {namespace}.readings (id BIGINT PRIMARY KEY, celsius DOUBLE)")
    shared_server.sql(f"INSERT INTO {namespace}.readings VALUES (1, 20.5), (2, 21.5)")
    keyboard = console.page.keyboard
    console.open("overview")
    tab_to(console, "Skip to the page")
    keyboard.press("Enter")
    assert console.page.evaluate("document.activeElement.id") == "main"
    console.page.reload()
    tab_to(console, "Query")
    keyboard.press("Enter")
    console.page.get_by_role("heading", name="Query").wait_for()
    tab_to(console, "SQL")
    keyboard.press("Control+a")
    keyboard.type(f"SELECT id, celsius FROM {namespace}.readings ORDER BY id")
    keyboard.press("Control+Enter")
    grid = console.page.get_by_role("grid", name="Results")
    grid.get_by_text("21.5").wait_for()
    tab_to(console, "1")  # the grid is one stop; arrows lead through its cells
    keyboard.press("ArrowDown")
    keyboard.press("ArrowRight")
    assert console.page.evaluate(FOCUSED) == "21.5"
    tab_to(console, "SQL", "Shift+Tab")


def test_a_table_is_created_and_a_dialog_is_left_by_escape(console, shared_server, namespace):
    keyboard = console.page.keyboard
    console.open("tables")
    tab_to(console, "Create table")
    keyboard.press("Enter")
    console.page.get_by_role("dialog").wait_for()
    tab_to(console, "Statement")
    keyboard.press("Control+a")
    keyboard.insert_text(f"CREATE TABLE {namespace}.by_hand (id BIGINT PRIMARY KEY)")
    tab_to(console, "Run")
    keyboard.press("Enter")
    console.page.get_by_role("dialog").wait_for(state="detached")
    assert shared_server.sql("SELECT count(*) FROM system.tables WHERE namespace = $1", namespace) == [[1]]
    console.open(f"tables/{namespace}/by_hand")
    tab_to(console, "Drop table")
    keyboard.press("Enter")
    console.page.get_by_role("dialog").wait_for()
    for _ in range(OPENINGS):
        keyboard.press("Escape")
        console.page.get_by_role("dialog").wait_for(state="detached")
        wait_focus(console, "Drop table")
        keyboard.press("Enter")
        console.page.get_by_role("dialog").wait_for()
    tab_to(console, "Cancel")
    keyboard.press("Enter")
    console.page.get_by_role("dialog").wait_for(state="detached")
    wait_focus(console, "Drop table")
    assert shared_server.sql("SELECT count(*) FROM system.tables WHERE namespace = $1", namespace) == [[1]]
