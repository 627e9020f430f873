"""The console on a server that asks who one is: log in and out, what a reader is not shown, what administrators do."""

from __future__ import annotations

import base64
import json
import re
import urllib.request

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

PASSWORD = "a right good password"


def ask(server, sql, *params, user="admin"):
    """Run statements as somebody, as curl would."""
    secret = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(
        f"{server.http_url}/v1/sql",
        json.dumps({"sql": sql, "params": params}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {secret}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)["results"][-1]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    data = tmp_path_factory.mktemp("console") / "data"
    server = ServerProcess(data, flags=("--auth", "on")).start(KALAM_ADMIN_PASSWORD=PASSWORD)
    ask(server, "CREATE USER rita PASSWORD $1; CREATE USER olga PASSWORD $1", PASSWORD)
    ask(
        server,
        "CREATE NAMESPACE lab; CREATE TABLE lab.readings (id BIGINT PRIMARY KEY, celsius DOUBLE);"
        "CREATE TABLE lab.secret (id BIGINT PRIMARY KEY); INSERT INTO lab.readings VALUES (1, 20.5), (2, 21.5);"
        "GRANT SELECT ON TABLE lab.readings TO rita; ALTER TABLE lab.readings OWNER TO olga;"
        "CREATE POLICY own ON lab.secret FOR SELECT TO rita, olga USING (id = 1 OR CURRENT_USER() = 'olga')",
    )
    yield server
    server.stop()


def log_in(console, user, password=PASSWORD):
    console.page.get_by_label("User", exact=True).fill(user)
    console.page.get_by_label("Password", exact=True).fill(password)
    console.button("Log in").click()


@pytest.fixture
def console_of(open_console, guarded):
    """Open the console as a user."""

    def open_as(user, route="overview", **options):
        console = open_console(guarded, **options)
        console.page.goto(f"{console.url}/#/{route}")
        log_in(console, user)
        console.page.get_by_role("link", name="Log out").wait_for()
        return console

    return open_as


def links(console):
    return [link.inner_text() for link in console.page.get_by_role("navigation").get_by_role("link").all()][1:]


def test_a_stranger_logs_in_and_is_where_they_wanted_to_be(open_console, guarded):
    console = open_console(guarded)
    console.page.goto(f"{console.url}/#/tables/lab/readings")
    console.page.get_by_role("heading", name="Log in").wait_for()
    assert links(console) == ["Manual"]
    assert console.page.title() == "Log in \N{EN DASH} Kalam"
    log_in(console, "rita", "a wrong password")
    console.page.get_by_role("alert").get_by_text("unauthenticated").wait_for()
    assert console.page.get_by_label("Password", exact=True).input_value() == ""
    log_in(console, "rita")
    console.page.get_by_role("heading", name="lab.readings").wait_for()
    assert console.page.url.endswith("/#/tables/lab/readings")
    console.page.reload()
    console.page.get_by_role("heading", name="lab.readings").wait_for()


def test_who_logs_out_is_a_stranger_in_every_window(console_of):
    console = console_of("rita")
    other = console.page.context.new_page()
    other.goto(f"{console.url}/#/tables")
    other.get_by_role("heading", name="Tables").wait_for()
    console.page.get_by_role("link", name="Log out").click()
    console.page.get_by_role("heading", name="Log in").wait_for()
    other.reload()
    other.get_by_role("heading", name="Log in").wait_for()
    console.page.go_back()
    console.page.get_by_role("heading", name="Log in").wait_for()


def test_a_reader_is_shown_nothing_that_they_may_not_do(console_of):
    console = console_of("rita", "tables")
    console.page.get_by_role("link", name="readings", exact=True).wait_for()
    assert links(console) == ["Overview", "Query", "Tables", "Live", "Jobs", "Manual", "Log out"]
    assert console.page.get_by_text("secret").count() == 0
    assert console.button("Create table").count() == 0
    console.open("tables/lab/readings")
    console.page.get_by_text("21.5").wait_for()
    assert console.page.get_by_role("link", name="Query it").count() == 1
    for name in ("Insert rows", "Edit", "Delete", "Flush", "Compact", "Alter", "Drop table"):
        assert console.button(name).count() == 0, name
    console.open("users")
    console.page.get_by_text("Only administrators see the users.").wait_for()
    console.open("streams")
    console.page.get_by_text("Only administrators see the streams").wait_for()
    console.open("query")
    console.type_sql("SELECT * FROM lab.secret")
    console.button("Run").click()
    console.page.get_by_role("alert").get_by_text("there is no table lab.secret").wait_for()
    console.type_sql("INSERT INTO lab.readings VALUES (3, 1.0)")
    console.button("Run").click()
    console.page.get_by_role("alert").get_by_text("permission_denied").wait_for()


def test_what_a_reader_follows_ends_with_their_right(console_of, guarded):
    ask(
        guarded,
        "CREATE TABLE IF NOT EXISTS lab.followed (id BIGINT PRIMARY KEY); GRANT SELECT ON TABLE lab.followed TO rita",
    )
    console = console_of("rita", "live")
    console.page.get_by_role("textbox", name="Live query").fill("lab.followed")
    console.button("Start").click()
    console.page.get_by_role("status").get_by_text("Listening").wait_for()
    changes = console.page.get_by_role("region", name="Changes")
    ask(guarded, "INSERT INTO lab.followed VALUES (1)")
    changes.get_by_text("insert", exact=True).wait_for()
    ask(guarded, "REVOKE SELECT ON TABLE lab.followed FROM rita")
    changes.get_by_text("permission", exact=True).wait_for()
    console.page.get_by_role("status").get_by_text("Not running").wait_for()


def test_an_owner_does_with_a_table_what_an_owner_may(console_of, guarded):
    console = console_of("olga", "tables/lab/readings")
    console.button("Insert rows").click()
    dialog = console.page.get_by_role("dialog")
    dialog.get_by_label(re.compile("^id")).fill("7")
    dialog.get_by_label(re.compile("^celsius")).fill("7.25")
    dialog.get_by_role("button", name="Insert", exact=True).click()
    dialog.wait_for(state="hidden")
    console.page.get_by_text("7.25").wait_for()
    assert ask(guarded, "SELECT celsius FROM lab.readings WHERE id = 7")["rows"] == [[7.25]]
    for name in ("Flush", "Compact", "Alter", "Drop table"):
        assert console.button(name).count() == 1, name
    assert "Users" not in links(console)


def test_an_administrator_makes_a_user_grants_and_ends_a_session(console_of, open_console, guarded):
    reader = console_of("rita")
    console = console_of("admin", "users")
    assert links(console)[2:4] == ["Tables", "Streams"]
    console.button("Create user").click()
    dialog = console.page.get_by_role("dialog")
    statement = dialog.get_by_role("textbox", name="Statement")
    assert statement.input_value() == "CREATE USER ada WITH PASSWORD $1"
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Run", exact=True).click()
    dialog.wait_for(state="hidden")
    users = console.page.get_by_role("region", name="Users")
    users.get_by_role("cell", name="ada", exact=True).wait_for()
    console.button("Grant").click()
    statement.fill("GRANT SELECT ON TABLE lab.readings TO ada")
    dialog.get_by_role("button", name="Run", exact=True).click()
    dialog.wait_for(state="hidden")
    assert ask(guarded, "SELECT id FROM lab.readings WHERE id = 1", user="ada")["rows"] == [[1]]
    sessions = console.page.get_by_role("region", name="Sessions")
    sessions.get_by_role("row").filter(has_text="rita").get_by_role("button", name=re.compile("^End")).first.wait_for()
    for row in ask(guarded, "SELECT session_id FROM system.sessions WHERE \"user\" = 'rita'")["rows"]:
        ask(guarded, f"KILL SESSION '{row[0]}'")
    reader.page.get_by_role("link", name="Tables", exact=True).click()
    reader.page.get_by_role("heading", name="Log in").wait_for()


def test_an_administrator_makes_a_policy_has_it_asked_and_drops_it(console_of, guarded):
    console = console_of("admin", "users")
    console.button("Create policy").click()
    dialog = console.page.get_by_role("dialog")
    statement = dialog.get_by_role("textbox", name="Statement")
    statement.fill("CREATE POLICY warm ON lab.readings TO rita USING (nothing > 20)")
    dialog.get_by_role("button", name="Run", exact=True).click()
    dialog.get_by_role("alert").get_by_text("column_not_found").wait_for()
    statement.fill("CREATE POLICY warm ON lab.readings TO rita USING (celsius > 20)")
    dialog.get_by_role("button", name="Run", exact=True).click()
    dialog.wait_for(state="hidden")
    policies = console.page.get_by_role("region", name="Policies on lab.readings")
    policies.get_by_role("cell", name="celsius > 20", exact=True).wait_for()
    console.button("Create policy on lab.readings").click()
    assert statement.input_value().startswith("CREATE POLICY own ON lab.readings TO PUBLIC USING (")
    dialog.get_by_role("button", name="Cancel").click()
    console.button("Enable row level security of lab.readings").click()
    assert statement.input_value() == "ALTER TABLE lab.readings ENABLE ROW LEVEL SECURITY"
    dialog.get_by_role("button", name="Run", exact=True).click()
    console.page.get_by_text("Row level security is on.").wait_for()
    assert ask(guarded, "SELECT id FROM lab.readings WHERE id < 3 ORDER BY id", user="rita")["rows"] == [[1], [2]]
    assert ask(guarded, "SELECT id FROM lab.readings")["rows"] == []
    ask(guarded, "DROP POLICY warm ON lab.readings")
    console.page.reload()
    console.page.get_by_text("without a policy nobody sees a row").wait_for()
    console.button("Disable row level security of lab.readings").click()
    dialog.get_by_role("button", name="Run", exact=True).click()
    console.page.get_by_text("without a policy nobody sees a row").wait_for(state="hidden")
    ask(guarded, "CREATE POLICY warm ON lab.readings TO rita USING (celsius > 20)")
    console.page.reload()
    policies.get_by_role("button", name="Drop warm").click()
    assert statement.input_value() == "DROP POLICY warm ON lab.readings"
    dialog.get_by_role("button", name="Run", exact=True).click()
    policies.wait_for(state="hidden")
    assert ask(guarded, "SHOW POLICIES ON lab.readings")["rows"] == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_where_one_logs_in_and_where_users_are(open_console, console_of, guarded, theme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    stranger = open_console(guarded, width=width, theme=theme)
    stranger.open("login")
    administrator = console_of("admin", "users", width=width, theme=theme)
    administrator.page.get_by_role("region", name="Users").wait_for()
    administrator.page.get_by_role("region", name="Policies on lab.secret").wait_for()
    for console in (stranger, administrator):
        console.page.wait_for_load_state("networkidle")
        found = axe.run(console.page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        overflow = console.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0
