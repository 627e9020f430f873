"""What is wrong about users and what they may: a clear error, and the whole book is as it was."""

from __future__ import annotations

import sqlite3
from typing import Any

import httpx
import pytest
from guarded_world import PASSWORD, World, basic, open_world

LONG = "x" * 100_000
BOOK = ("users", "roles", "members", "grants", "tokens", "policies", "dropped_users")
COMPOSED, DECOMPOSED = "caf\u00e9 au lait", "cafe\u0301 au lait"

NAMES = ("", "a b", "a.b", "a*", ">", "ä", "a\0b", "a'b", "x" * 65, LONG, "public", "Public")
PASSWORDS = ("", "seven77", "x" * 1_025, LONG, 12_345_678, 1.5, True, None, [PASSWORD], {"password": PASSWORD})

WRONG: list[tuple[str, str, str]] = [
    # who, what, code
    *(("admin", f'CREATE {what} "{name}"', "") for what in ("USER", "ROLE") for name in NAMES),
    ("admin", "CREATE USER", "syntax_error"),
    ("admin", "CREATE USER reader PASSWORD 'another good password'", "already_exists"),
    ("admin", "CREATE USER readers", "already_exists"),
    ("admin", "CREATE ROLE reader", "already_exists"),
    ("admin", "CREATE ROLE readers", "already_exists"),
    ("admin", "CREATE USER fresh PASSWORD ''", "invalid_value"),
    ("admin", "CREATE USER fresh PASSWORD 'seven77'", "invalid_value"),
    ("admin", f"CREATE USER fresh PASSWORD '{LONG}'", "invalid_value"),
    ("admin", "CREATE USER fresh PASSWORD $2", "invalid_value"),
    ("admin", "CREATE USER fresh VALID UNTIL 'never'", "invalid_value"),
    ("admin", "CREATE USER fresh VALID UNTIL ''", "invalid_value"),
    ("admin", "ALTER USER nobody LOCK", "not_found"),
    ("admin", "ALTER USER readers LOCK", "not_found"),
    ("admin", "ALTER USER reader PASSWORD 'seven77'", "invalid_value"),
    ("admin", "ALTER USER reader VALID UNTIL '2027-13-45'", "invalid_value"),
    ("admin", "DROP USER nobody", "not_found"),
    ("admin", "DROP USER readers", "not_found"),
    ("admin", "DROP USER owner", "table_in_use"),
    ("admin", "DROP USER owner CASCADE", "table_in_use"),
    ("admin", "DROP ROLE nobody", "not_found"),
    ("admin", "DROP ROLE reader", "not_found"),
    # roles in a circle, and who is not there beside who is
    ("admin", "GRANT readers TO readers", "invalid_option"),
    ("admin", "GRANT team TO readers", "invalid_option"),
    ("admin", "GRANT inner_role TO readers", "invalid_option"),
    ("admin", "GRANT readers TO bystander, nobody", "not_found"),
    ("admin", "GRANT nothing TO bystander", "not_found"),
    ("admin", "GRANT reader TO bystander", "not_found"),
    ("admin", "GRANT readers TO public", "not_found"),
    ("admin", "REVOKE readers FROM member, nobody", "not_found"),
    ("admin", "GRANT SELECT ON TABLE lab.t TO bystander, nobody", "not_found"),
    ("admin", "REVOKE SELECT ON TABLE lab.t FROM reader, nobody", "not_found"),
    ("admin", "SHOW GRANTS FOR nobody", "not_found"),
    ("admin", "SHOW GRANTS ON lab.nothing", "table_not_found"),
    ("admin", "GRANT SELECT ON TABLE lab.nothing TO bystander", "table_not_found"),
    ("admin", "GRANT SELECT ON NAMESPACE nothing TO bystander", "namespace_not_found"),
    ("admin", "GRANT SELECT, CREATE ON TABLE lab.t TO bystander", "unsupported"),
    ("admin", "GRANT JETSTREAM ON TABLE lab.t TO bystander", "unsupported"),
    ("admin", "GRANT JETSTREAM ON NAMESPACE lab TO bystander", "unsupported"),
    ("admin", "GRANT JETSTREAM ON TABLE lab.logs TO public", "unsupported"),
    ("admin", "GRANT TRUNCATE ON TABLE lab.t TO bystander", "syntax_error"),
    ("admin", "REVOKE READ ON TABLE lab.t FROM bystander", "syntax_error"),
    ("admin", "ALTER TABLE lab.t OWNER TO nobody", "not_found"),
    ("admin", "ALTER TABLE lab.t OWNER TO public", "unsupported"),
    ("admin", "CREATE TOKEN '' FOR bystander", "invalid_name"),
    ("admin", f"CREATE TOKEN '{LONG}' FOR bystander", "invalid_name"),
    ("admin", "CREATE TOKEN 'x' FOR nobody", "not_found"),
    ("admin", "CREATE TOKEN 'x' FOR bystander EXPIRES '0d'", "invalid_option"),
    ("admin", "CREATE TOKEN 'x' FOR bystander EXPIRES '-1d'", "invalid_option"),
    ("admin", "CREATE TOKEN 'x' FOR bystander EXPIRES '999999999d'", "invalid_option"),
    ("admin", "DROP TOKEN 'nothing' FOR bystander", "not_found"),
    # granting what one has not got
    ("reader", "GRANT SELECT ON TABLE lab.t TO bystander", "permission_denied"),
    ("writer", "GRANT INSERT ON TABLE lab.t TO bystander", "permission_denied"),
    ("writer", "REVOKE SELECT ON TABLE lab.t FROM reader", "permission_denied"),
    ("member", "GRANT readers TO bystander", "permission_denied"),
    ("trusted", "GRANT JETSTREAM ON TABLE lab.logs TO bystander", "permission_denied"),
    ("owner", "GRANT JETSTREAM ON TABLE lab.logs TO bystander", "permission_denied"),
    ("owner", "GRANT CREATE ON NAMESPACE lab TO bystander", "permission_denied"),
    ("owner", "GRANT SELECT ON NAMESPACE lab TO bystander", "permission_denied"),
    ("owner", "ALTER TABLE lab.t OWNER TO bystander", "permission_denied"),
    ("owner", "ALTER TABLE lab.t OWNER TO readers", "permission_denied"),
    ("none", "GRANT SELECT ON TABLE lab.t TO none", "namespace_not_found"),
]


def book(world: World) -> dict[str, list[Any]]:
    """All that the database holds of users and what they may."""
    conn = sqlite3.connect(f"file:{world.server.data_dir / 'kalam.db'}?mode=ro", uri=True)
    try:
        return {table: sorted(conn.execute(f"SELECT * FROM {table}"), key=repr) for table in BOOK}
    finally:
        conn.close()


@pytest.fixture(scope="module")
def ringed(world: World) -> World:
    """A world with a role in a role in a role."""
    world.admin.rows("CREATE ROLE inner_role; GRANT team TO inner_role")
    return world


@pytest.mark.parametrize("who", sorted({who for who, _, _ in WRONG}))
def test_a_wrong_statement_has_its_error_and_changes_nothing(ringed: World, who: str) -> None:
    before, wrong = book(ringed), []
    for person, statement, code in WRONG:
        if person != who:
            continue
        answer = ringed.asker(person).answer(statement)
        told = answer.json()
        if told.get("code", "ok") not in ({code} if code else {"invalid_name", "syntax_error"}):
            wrong.append((statement[:80], told))
        assert len(answer.text) < 2_000
        if book(ringed) != before:
            wrong.append((statement[:80], "the book has changed"))
            before = book(ringed)
    assert wrong == []


@pytest.mark.parametrize("number", range(len(PASSWORDS)))
def test_what_is_no_password_is_refused_as_a_parameter_too(ringed: World, number: int) -> None:
    before = book(ringed)
    for statement in ("CREATE USER fresh PASSWORD $1", "ALTER USER reader PASSWORD $1"):
        assert ringed.admin.code(statement, PASSWORDS[number]) == "invalid_value"
    assert book(ringed) == before


def me(world: World, user: str, secret: str) -> int:
    return httpx.get(f"{world.server.http_url}/v1/me", headers=basic(user, secret)).status_code


def test_a_password_is_compared_as_it_was_given(ringed: World) -> None:
    for name, right, wrong in (
        ("composed", COMPOSED, DECOMPOSED),
        ("nul", "before\0behind", "before\0another"),
        ("blank", " blanks count ", "blanks count"),
        ("longest", "x" * 1_024, "x" * 1_023),
    ):
        ringed.admin.rows(f"CREATE USER {name} PASSWORD $1", right)
        assert (me(ringed, name, wrong), me(ringed, name, right)) == (401, 200)


@pytest.mark.parametrize("user", ["", "a\0b", "x" * 65, "ä", "*", "a:b"])
@pytest.mark.parametrize("length", [0, 7, 100_000])
def test_a_login_of_any_form_is_refused_alike(ringed: World, user: str, length: int) -> None:
    body = {"user": user, "password": "x" * length}
    answer = httpx.post(f"{ringed.server.http_url}/v1/login", json=body)
    assert (answer.status_code, answer.json()["code"]) in ((401, "unauthenticated"), (429, "too_busy"))


def test_the_last_administrator_stays_whatever_is_tried(tmp_path: Any) -> None:
    """With a password, and with nothing but a token: one way to come in is left."""
    world = open_world(tmp_path)
    try:
        [[token, *_]] = world.admin.rows("CREATE USER bot ADMIN; CREATE TOKEN 'only' FOR bot")
        bot = world.asker("bot", {"Authorization": f"Bearer {token}"})
        bot.rows("DROP USER root; ALTER USER admin NOADMIN")
        before = book(world)
        for statement in (
            "DROP USER bot",
            "ALTER USER bot LOCK",
            "ALTER USER bot NOADMIN",
            "ALTER USER bot VALID UNTIL '2099-01-01'",
            "DROP TOKEN 'only' FOR bot",
            "DROP TOKEN 'only'",
        ):
            assert bot.code(statement) == "permission_denied", statement
            assert book(world) == before
        bot.rows("CREATE TOKEN 'other'; DROP TOKEN 'only'")
        assert bot.code("SELECT 1") == "unauthenticated"
    finally:
        world.close()
        world.server.kill()
