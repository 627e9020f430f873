"""Every page in both themes and at two widths: nothing that axe-core finds, no scrolling sideways, a title, a face."""

from __future__ import annotations

import pytest

axe_module = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)

PAGES = [
    "overview",
    "query",
    "tables",
    "streams",
    "live",
    "jobs",
    "manual",
    "manual/sql",
    "manual/system",
    "manual/protocol",
    "manual/settings",
]


@pytest.fixture(scope="module")
def filled(shared_server):
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS pages")
    shared_server.sql(
        "CREATE TABLE IF NOT EXISTS pages.readings (id BIGINT PRIMARY KEY, sensor TEXT, at TIMESTAMP, j JSON)"
    )
    shared_server.sql(
        "INSERT INTO pages.readings VALUES (1, 'a', '2026-01-01T00:00:00Z', NULL), (2, NULL, NULL, NULL) "
        "ON CONFLICT (id) DO NOTHING"
    )
    shared_server.sql("FLUSH TABLE pages.readings")
    return shared_server


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_sticks_out(open_console, filled, theme, width):
    console = open_console(filled, width=width, theme=theme)
    axe = axe_module.Axe()
    for route in [*PAGES, "tables/pages/readings"]:
        console.open(route)
        console.page.wait_for_load_state("networkidle")
        found = axe.run(console.page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(route, one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        overflow = console.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert (route, overflow) == (route, 0)


@pytest.mark.parametrize("name", ["Overview", "Query", "Tables", "Streams", "Live", "Jobs", "Manual"])
def test_the_rail_leads_to_each_page(console, name):
    console.open("overview")
    console.page.get_by_role("link", name=name, exact=True).click()
    console.page.wait_for_url(f"**/#/{name.lower()}")
    assert console.page.title().endswith(" \N{EN DASH} Kalam")
    console.page.locator("[aria-current=page]", has_text=name).first.wait_for()


def test_the_theme_is_switched_and_kept(console):
    console.open("overview")
    before = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
    console.button("Theme").click()
    after = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert after != before
    console.page.reload()
    console.page.get_by_role("heading", name="Overview").wait_for()
    assert console.page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_the_policy_allows_nothing_inline_and_nothing_foreign(console, shared_server):
    response = console.page.goto(f"{console.url}/")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy


def test_a_page_that_is_not_there_says_so(console):
    console.page.goto(f"{console.url}/#/nonsense")
    console.page.get_by_text("There is no page").wait_for()


def test_the_manual_is_searched(console):
    console.open("manual")
    console.page.get_by_role("searchbox", name="Search the manual").fill("retention")
    console.page.locator(".hits a").first.wait_for()
    console.page.get_by_role("searchbox", name="Search the manual").fill("no such words anywhere")
    console.page.get_by_text("Nothing found.").wait_for()


def test_every_link_of_the_rail_is_in_sight_on_a_phone(open_console, filled):
    console = open_console(filled, width=390)
    console.open("overview")
    for name in ["Overview", "Query", "Tables", "Streams", "Live", "Jobs", "Manual"]:
        box = console.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    box = console.button("Theme").bounding_box()
    assert box["x"] + box["width"] <= 390


LONG = "a_name_of_sixty_three_letters_as_long_as_any_name_may_be_in_sql"
STICKING_OUT = """() => [document.documentElement, document.getElementById("main")]
    .map((element) => element.scrollWidth - element.clientWidth)"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_longest_names_fit_on_every_page(open_console, filled, width):
    assert len(LONG) == 63
    filled.sql(f"CREATE NAMESPACE IF NOT EXISTS {LONG}")
    filled.sql(f"CREATE TABLE IF NOT EXISTS {LONG}.{LONG} ({LONG} TEXT PRIMARY KEY)")
    filled.sql(f"INSERT INTO {LONG}.{LONG} VALUES ('{LONG}{width}')")
    filled.sql(f"FLUSH TABLE {LONG}.{LONG}")
    console = open_console(filled, width=width)
    for route in ["overview", "tables", f"tables/{LONG}/{LONG}", "jobs", "manual/settings", "manual/protocol"]:
        console.open(route)
        console.page.wait_for_load_state("networkidle")
        assert console.page.evaluate(STICKING_OUT) == [0, 0], route
    filled.sql(f"DROP TABLE {LONG}.{LONG}")


LINES = """element => {
    const range = document.createRange();
    range.selectNodeContents(element);
    return range.getClientRects().length;
}"""


def test_the_tables_of_the_manual_break_no_word_on_a_phone(open_console, filled):
    console = open_console(filled, width=390)
    console.open("manual/sql")
    cell = console.page.get_by_role("cell", name="STREAM", exact=True).first
    assert cell.evaluate(LINES) == 1
    console.page.get_by_role("group", name="Table").first.focus()  # it scrolls by keyboard
    console.page.get_by_text("Pages", exact=True).click()
    console.page.get_by_role("link", name="NATS", exact=True).click()
    console.page.get_by_role("heading", name="NATS", exact=True).wait_for()
    assert not console.page.get_by_role("link", name="HTTP", exact=True).is_visible()


def test_a_page_that_the_manual_has_not_is_told(console):
    console.open("manual/nothing_of_the_kind")
    console.page.get_by_text("There is no page").wait_for()
