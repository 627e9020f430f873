"""Users, roles, grants and tokens by SQL, on a server that asks who one is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

PASSWORD = "a right good password"


class Asker:
    """Asks over HTTP as one user."""

    def __init__(self, url: str, user: str, secret: str) -> None:
        self._url = url
        bare = base64.b64encode(f"{user}:{secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {bare}"}

    def answer(self, sql: str, params: list[Any] | None = None, **headers: str) -> httpx.Response:
        body = {"sql": sql, "params": params or []}
        return httpx.post(f"{self._url}/v1/sql", json=body, headers=self._headers | headers, timeout=PATIENCE_S)

    def stream(self, method: str, path: str, **asked: Any) -> AbstractContextManager[httpx.Response]:
        headers = self._headers | asked.pop("headers", {})
        return httpx.stream(method, f"{self._url}{path}", headers=headers, timeout=PATIENCE_S, **asked)

    def rows(self, sql: str, params: list[Any] | None = None, **headers: str) -> list[list[Any]]:
        answer = self.answer(sql, params, **headers)
        assert answer.status_code == 200, answer.text
        found: list[list[Any]] = answer.json()["results"][-1].get("rows", [])
        return found

    def code(self, sql: str, **headers: str) -> str:
        return str(self.answer(sql, **headers).json().get("code", "ok"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with authentication, the tables of two teams, and somebody of each kind."""
    data: Path = tmp_path_factory.mktemp("guarded") / "data"
    server = ServerProcess(data, flags=("--auth", "on")).start(KALAM_ADMIN_PASSWORD=PASSWORD)
    admin = Asker(server.announcement["http_url"], "admin", PASSWORD)
    for name in ("ada", "ben", "cleo", "mia"):
        admin.rows(f"CREATE USER {name} PASSWORD $1", [PASSWORD])
    admin.rows(
        "CREATE ROLE readers; GRANT readers TO mia; CREATE NAMESPACE lab; CREATE NAMESPACE shop;"
        "GRANT CREATE ON NAMESPACE lab TO ada"
    )
    ada = Asker(server.announcement["http_url"], "ada", PASSWORD)
    ada.rows(
        "CREATE TABLE lab.t (id INT PRIMARY KEY, v TEXT); INSERT INTO lab.t VALUES (1, 'one');"
        "CREATE USER TABLE lab.notes (id INT PRIMARY KEY, v TEXT);"
        "GRANT SELECT ON TABLE lab.t TO ben, readers; GRANT ALL ON TABLE lab.notes TO PUBLIC"
    )
    yield server
    server.stop()


def asker(server: ServerProcess, user: str) -> Asker:
    return Asker(server.announcement["http_url"], user, PASSWORD)


@pytest.mark.parametrize("user", ["ada", "ben", "mia", "admin"])
def test_who_was_granted_select_reads(guarded: ServerProcess, user: str) -> None:
    assert asker(guarded, user).rows("SELECT id, v FROM lab.t WHERE id = 1") == [[1, "one"]]
    assert asker(guarded, user).rows("SELECT count(*) FROM lab.t WHERE id < 2") == [[1]]


def test_what_one_may_not_see_does_not_exist(guarded: ServerProcess) -> None:
    cleo = asker(guarded, "cleo")
    for statement in (
        "SELECT * FROM lab.t",
        "SELECT * FROM lab.t WHERE id = 1",
        "INSERT INTO lab.t VALUES (2, 'two')",
        "UPDATE lab.t SET v = 'x'",
        "DELETE FROM lab.t",
        "DESCRIBE lab.t",
        "DROP TABLE lab.t",
        "ALTER TABLE lab.t ADD COLUMN w INT",
        "FLUSH TABLE lab.t",
        "SHOW STATS FOR TABLE lab.t",
        "SUBSCRIBE TO SELECT * FROM lab.t",
        "INSERT INTO lab.notes SELECT id, v FROM lab.t",
        "SELECT (SELECT max(id) FROM lab.t)",
        "GRANT SELECT ON TABLE lab.t TO cleo",
    ):
        answer = cleo.answer(statement)
        assert answer.json()["code"] == "table_not_found", statement
        assert "lab.t" not in answer.json().get("hint", "")
    assert cleo.rows("SHOW TABLES") == [row for row in cleo.rows("SHOW TABLES") if row[1] == "notes"]
    assert cleo.rows("SELECT table_name FROM system.tables") == [["notes"]]
    assert cleo.rows("SELECT * FROM system.audit") == []
    assert cleo.rows("SELECT * FROM system.segments") == []
    assert cleo.code("USE shop") == "namespace_not_found"


def test_what_one_sees_and_may_not_do_is_denied(guarded: ServerProcess) -> None:
    ben = asker(guarded, "ben")
    for statement in (
        "INSERT INTO lab.t VALUES (2, 'two')",
        "UPDATE lab.t SET v = 'x'",
        "DELETE FROM lab.t",
        "DROP TABLE lab.t",
        "ALTER TABLE lab.t ADD COLUMN w INT",
        "FLUSH TABLE lab.t",
        "COMPACT TABLE lab.t",
        "CHECK TABLE lab.t",
        "GRANT SELECT ON TABLE lab.t TO cleo",
        "ALTER TABLE lab.t OWNER TO ben",
        "CREATE TABLE lab.mine (id INT PRIMARY KEY)",
        "CREATE NAMESPACE mine",
        "DROP NAMESPACE lab",
        "CREATE USER eve PASSWORD 'password of eve'",
        "ALTER USER ben ADMIN",
        "ALTER USER ada PASSWORD 'another password'",
        "CREATE ROLE mine",
        "GRANT readers TO ben",
        "CREATE TOKEN 'ci' FOR ada",
        "EXECUTE AS USER 'ada' SELECT 1",
        "GRANT SELECT ON NAMESPACE lab TO ben",
        "KILL JOB 'x'",
    ):
        assert ben.code(statement) == "permission_denied", statement
    assert ben.code("SELECT 1", **{"X-Kalam-User": "ada"}) == "permission_denied"
    told = asker(guarded, "admin").rows("SELECT action FROM system.audit WHERE user = 'ben' AND outcome <> 'ok'")
    assert ["DROP TABLE"] in told
    assert ["CREATE USER"] in told
    assert ["EXECUTE AS"] in told


def test_an_administrator_acts_on_the_rows_of_another(guarded: ServerProcess) -> None:
    admin, ben = asker(guarded, "admin"), asker(guarded, "ben")
    ben.rows("INSERT INTO lab.notes VALUES (7, 'of ben')")
    assert admin.rows("SELECT v FROM lab.notes") == []
    assert admin.rows("EXECUTE AS USER 'ben' SELECT v, CURRENT_USER() FROM lab.notes") == [["of ben", "ben"]]
    assert admin.rows("SELECT v FROM lab.notes", **{"X-Kalam-User": "ben"}) == [["of ben"]]
    assert admin.code("EXECUTE AS USER 'nobody' SELECT 1") == "not_found"
    assert admin.code("EXECUTE AS USER 'ben' DROP USER ada") == "unsupported"


def test_a_grant_and_its_end_count_at_once(guarded: ServerProcess) -> None:
    ada, cleo = asker(guarded, "ada"), asker(guarded, "cleo")
    ada.rows("GRANT SELECT, INSERT ON TABLE lab.t TO cleo")
    cleo.rows("INSERT INTO lab.t VALUES (50, 'of cleo')")
    assert cleo.rows("SELECT v FROM lab.t WHERE id = 50") == [["of cleo"]]
    assert cleo.code("INSERT INTO lab.t VALUES (50, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'") == "permission_denied"
    ada.rows("REVOKE INSERT ON TABLE lab.t FROM cleo")
    assert cleo.code("INSERT INTO lab.t VALUES (51, 'x')") == "permission_denied"
    ada.rows("REVOKE ALL ON TABLE lab.t FROM cleo")
    assert cleo.code("SELECT v FROM lab.t WHERE id = 50") == "table_not_found"


def test_a_token_logs_in_until_it_is_dropped(guarded: ServerProcess) -> None:
    ben, url = asker(guarded, "ben"), guarded.announcement["http_url"]
    [[secret, _, name, user, expires]] = ben.rows("CREATE TOKEN 'ci' EXPIRES '1h'")
    assert (name, user) == ("ci", "ben")
    assert expires
    by_token = Asker(url, "ben", secret)
    assert by_token.rows("SELECT CURRENT_USER()") == [["ben"]]
    assert by_token.code("ALTER USER ben PASSWORD 'another password'") == "permission_denied"
    [[_, _, _, _, ends]] = by_token.rows("CREATE TOKEN 'longer'")
    assert ends == expires
    assert ben.code("CREATE TOKEN 'ci'") == "already_exists"
    ben.rows("DROP TOKEN 'ci'")
    assert by_token.code("SELECT 1") == "unauthenticated"


def test_the_last_administrator_stays(guarded: ServerProcess) -> None:
    admin = asker(guarded, "admin")
    for statement in ("DROP USER admin", "ALTER USER admin LOCK", "ALTER USER admin NOADMIN"):
        assert admin.code(statement) == "permission_denied", statement
    assert admin.code("ALTER USER admin VALID UNTIL '2099-01-01'") == "permission_denied"


def test_bad_input_changes_nothing(guarded: ServerProcess) -> None:
    admin = asker(guarded, "admin")
    before = admin.rows("SHOW USERS"), admin.rows("SHOW ROLES"), admin.rows("SHOW GRANTS")
    for statement, code in (
        ("CREATE USER public PASSWORD 'password of it'", "invalid_name"),
        ("CREATE USER ada PASSWORD 'another password'", "already_exists"),
        ("CREATE USER readers", "already_exists"),
        ("CREATE USER \"a b\" PASSWORD 'password of it'", "invalid_name"),
        ("CREATE USER eve PASSWORD ''", "invalid_value"),
        ("CREATE USER eve PASSWORD 'seven77'", "invalid_value"),
        (f"CREATE USER eve PASSWORD '{'x' * 100_000}'", "invalid_value"),
        ("CREATE USER eve VALID UNTIL 'never'", "invalid_value"),
        ("GRANT readers TO readers", "invalid_option"),
        ("GRANT readers TO nobody", "not_found"),
        ("GRANT nothing TO ada", "not_found"),
        ("GRANT CREATE ON TABLE lab.t TO ben", "unsupported"),
        ("GRANT JETSTREAM ON TABLE lab.t TO ben", "unsupported"),
        ("GRANT SELECT ON TABLE lab.nothing TO ben", "table_not_found"),
        ("GRANT SELECT ON TABLE lab.t TO nobody", "not_found"),
        ("DROP USER ada", "table_in_use"),
        ("DROP USER nobody", "not_found"),
    ):
        assert admin.code(statement) == code, statement
    assert (admin.rows("SHOW USERS"), admin.rows("SHOW ROLES"), admin.rows("SHOW GRANTS")) == before


def test_a_user_who_is_dropped_is_out_and_her_rows_are_nobodys(guarded: ServerProcess) -> None:
    admin, eve = asker(guarded, "admin"), asker(guarded, "eve")
    admin.rows("CREATE USER eve PASSWORD $1", [PASSWORD])
    eve.rows("INSERT INTO lab.notes VALUES (1, 'of eve')")
    admin.rows("DROP USER eve")
    assert eve.code("SELECT 1") == "unauthenticated"
    assert admin.code("CREATE USER eve PASSWORD 'another password'") == "already_exists"
    admin.rows("DROP USER eve CASCADE")
    admin.rows("CREATE USER eve PASSWORD $1", [PASSWORD])
    assert eve.rows("SELECT * FROM lab.notes") == []
    admin.rows("DROP USER eve")


@contextmanager
def answering(asker: Asker, method: str, path: str, **asked: Any) -> Iterator[Iterator[str]]:
    """The lines of an answer while they come."""
    with asker.stream(method, path, **asked) as response:
        assert response.status_code == 200, response.read()
        yield response.iter_lines()


def test_what_reads_and_what_listens_ends_with_the_right_and_what_others_do_goes_on(guarded: ServerProcess) -> None:
    admin, ada = asker(guarded, "admin"), asker(guarded, "ada")
    ada.rows("CREATE TABLE lab.much (id BIGINT PRIMARY KEY, v TEXT)")
    ada.rows("INSERT INTO lab.much SELECT value, repeat('x', 100) FROM range(0, 300000)")
    ada.rows("GRANT SELECT ON TABLE lab.much TO cleo, ben")
    query = {"json": {"sql": "SELECT * FROM lab.much"}, "headers": {"Accept": "application/x-ndjson"}}
    live = {"params": {"sql": "SELECT id FROM lab.much WHERE id < 0"}}
    with (
        answering(asker(guarded, "cleo"), "POST", "/v1/sql", **query) as of_cleo,
        answering(asker(guarded, "ben"), "POST", "/v1/sql", **query) as of_ben,
        answering(asker(guarded, "cleo"), "GET", "/v1/live", **live) as heard_by_cleo,
        answering(asker(guarded, "ben"), "GET", "/v1/live", **live) as heard_by_ben,
    ):
        for lines in (of_cleo, of_ben, heard_by_cleo, heard_by_ben):
            next(lines)
        admin.rows("REVOKE SELECT ON TABLE lab.much FROM cleo")
        assert any("permission" in line for line in heard_by_cleo)
        with suppress(httpx.RemoteProtocolError):  # it is broken off
            assert sum(1 for _ in of_cleo) < 299_999
        assert sum(1 for _ in of_ben) == 299_999
        ada.rows("INSERT INTO lab.much VALUES (-1, 'told')")
        assert any('"id":-1' in line.replace(" ", "") for line in heard_by_ben)


def test_an_owner_changes_while_columns_do(guarded: ServerProcess) -> None:
    admin = asker(guarded, "admin")
    admin.rows("CREATE TABLE shop.t (id INT PRIMARY KEY)")
    for number in range(10):
        statements = (
            f"ALTER TABLE shop.t ADD COLUMN c{number} INT",
            f"ALTER TABLE shop.t OWNER TO {('ada', 'ben')[number % 2]}",
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(admin.rows, statements))
    columns = {name for [section, name, *_] in admin.rows("DESCRIBE shop.t") if section == "column"}
    assert columns == {"id", *(f"c{number}" for number in range(10))}
    assert ["owner", "ben"] in [row[1:3] for row in admin.rows("DESCRIBE shop.t")]
    admin.rows("DROP TABLE shop.t")


def test_jobs_and_flushes_are_their_owners(guarded: ServerProcess) -> None:
    ada, ben = asker(guarded, "ada"), asker(guarded, "ben")
    ada.rows("INSERT INTO lab.t VALUES (300, 'flushed'); FLUSH TABLE lab.t")
    assert ada.rows("SELECT job_type FROM system.jobs WHERE table_name = 't'")
    assert ben.rows("SHOW JOBS") == []
    told = ben.answer("FLUSH ALL TABLES").json()["results"][0]
    assert told["message"] == "nothing was flushed: none of the tables is yours"


async def test_the_broker_knows_grants_too(guarded: ServerProcess) -> None:
    ben = await nats.connect(
        guarded.announcement["nats_url"], user="ben", password=PASSWORD, inbox_prefix=b"_INBOX.ben"
    )
    heard = await ben.subscribe("kalam.shared.lab.t.>")
    reply = await ben.request("kalam.api.ben.insert.lab.t", b'{"id": 90, "v": "x"}', timeout=PATIENCE_S)
    assert b"permission_denied" in reply.data
    asker(guarded, "ada").rows("INSERT INTO lab.t VALUES (91, 'heard')")
    assert b"heard" in (await heard.next_msg(timeout=10)).data
    await ben.close()
