"""*Streams*: what others keep in the broker is listed, looked into and adopted; the statement is shown first."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import nats
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_module = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)

LONG = "A_STREAM_OF_THE_WHOLE_PLANT_WITH_A_NAME_THAT_SOMEBODY_FOUND_CLEAR"
STICKING_OUT = """() => [document.documentElement, document.getElementById("main")]
    .map((element) => element.scrollWidth - element.clientWidth)"""


async def make_streams(url):
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="FACTORY", subjects=["factory.>"])
    for number in range(6):
        row = {"temp": 20.5 + number, "machineId": f"m{number}"}
        await js.publish(f"factory.line{number % 2}.telemetry", json.dumps(row).encode())
    await js.publish("factory.alarms.red", b'{"level": "high"}')
    await js.add_stream(name="EMPTY", subjects=["nobody"])
    await js.add_stream(name="QUEUE", subjects=["work"], retention="workqueue", allow_direct=False)
    await js.add_stream(name=LONG, subjects=["a.subject.of.many.tokens.that.somebody.found.clear.as.well.>"])
    await client.close()


@pytest.fixture(scope="module")
def streams(shared_server):
    """The server, with streams of others in its broker."""
    with ThreadPoolExecutor(1) as pool:  # an event loop runs in this thread already
        pool.submit(asyncio.run, make_streams(shared_server.nats_url)).result()
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS plant")
    return shared_server


def dialog(console):
    return console.page.get_by_role("dialog")


def statement(console):
    return dialog(console).get_by_role("textbox", name="Statement")


def line_of(console, stream):
    return console.page.get_by_role("region", name="Streams").get_by_role("row").filter(has_text=stream)


def test_where_nobody_else_has_a_stream_it_says_what_would_be_here(console):
    console.open("streams")
    console.page.get_by_role("heading", name="No stream of others yet").wait_for()


def test_a_stream_is_adopted_from_the_list(console, streams):
    console.page.goto(f"{console.url}/#/overview")
    console.page.get_by_role("link", name="Streams", exact=True).click()
    assert "factory.>" in line_of(console, "FACTORY").inner_text()
    console.button("Adopt FACTORY").click()
    proposed = statement(console).input_value()
    assert "CREATE STREAM TABLE" in proposed
    assert "SUBJECT 'factory.*.telemetry'" in proposed
    dialog(console).get_by_label("Messages").select_option(index=1)
    sync_api.expect(statement(console)).to_have_value(re.compile("factory.alarms.red"))
    dialog(console).get_by_label("Messages").select_option(index=0)
    sync_api.expect(statement(console)).to_have_value(re.compile("telemetry"))
    statement(console).fill(proposed.replace(".factory (", ".press ("))
    dialog(console).get_by_role("button", name="Run", exact=True).click()
    dialog(console).wait_for(state="detached")
    line_of(console, "FACTORY").get_by_role("link", name="plant.press").click()
    console.page.get_by_role("grid", name="Rows of plant.press").get_by_text("25.5").wait_for()
    assert streams.sql("SELECT count(*) FROM plant.press") == [[6]]


def test_a_stream_shows_what_lies_in_it_and_one_kind_of_its_messages_is_adopted_by_keyboard(console, streams):
    console.open("streams")
    console.page.get_by_role("link", name="FACTORY", exact=True).press("Enter")
    console.page.get_by_role("heading", name="FACTORY", level=1).wait_for()
    assert console.page.title() == "FACTORY \N{EN DASH} Kalam"
    columns = console.page.get_by_role("region", name="Columns of factory.*.telemetry")
    assert "machineId" in columns.inner_text()
    console.page.get_by_text("7 messages looked at").wait_for()
    console.button("Adopt factory.alarms.red").press("Enter")
    statement(console).fill(statement(console).input_value().replace("factory_2", "alarms"))
    statement(console).press("Tab")
    console.page.keyboard.press("Tab")
    console.page.keyboard.press("Enter")
    dialog(console).wait_for(state="detached")
    console.page.get_by_role("link", name="plant.alarms").wait_for()
    assert streams.sql("SELECT level FROM plant.alarms") == [["high"]]


@pytest.mark.parametrize(
    ("stream", "told"),
    [("QUEUE", "nats stream edit QUEUE --allow-direct"), ("EMPTY", "It holds no message")],
    ids=["work-queue", "empty"],
)
def test_what_cannot_be_adopted_says_why(console, streams, stream, told):
    console.open("streams")
    console.button(f"Adopt {stream}").click()
    dialog(console).get_by_text(told).wait_for()
    console.page.keyboard.press("Escape")
    dialog(console).wait_for(state="detached")
    console.open(f"streams/{stream}")
    console.page.get_by_text(told).wait_for()


def test_a_stream_that_is_not_there_says_which_there_are(console, streams):
    console.open("streams/FACTORIES")
    console.page.get_by_role("alert").get_by_text("there are FACTORY").wait_for()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_and_nothing_sticks_out(open_console, streams, width, theme):
    console = open_console(streams, width=width, theme=theme)
    axe = axe_module.Axe()
    for route in ("streams", f"streams/{LONG}", "streams/FACTORY"):
        console.open(route)
        console.page.wait_for_load_state("networkidle")
        assert console.page.evaluate(STICKING_OUT) == [0, 0], route
        results = axe.run(console.page)
        assert results.violations_count == 0, results.generate_report()
    console.button("Adopt factory.*.telemetry").click()
    statement(console).wait_for()
    results = axe.run(console.page)
    assert results.violations_count == 0, results.generate_report()
