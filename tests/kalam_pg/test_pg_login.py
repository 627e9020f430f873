"""Logins at the PostgreSQL door: SCRAM, tokens, TLS, what is refused, and who is shown out."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import pytest
import sqlalchemy as sa
from certificates import Authority
from guarded_server import PASSWORD, GuardedServer
from patience import PATIENCE_S

from kalam.access.scram import BadExchange, Exchange, make_verifier, saslprep


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    made = GuardedServer.started(tmp_path_factory.mktemp("guarded") / "data", "--pg-port=0")
    yield made
    made.kill()


def url(server: GuardedServer, user: str) -> str:
    return str(server.announcement["pg_url"]).replace("//", f"//{user}@") + "/kalam"


def log_in(server: GuardedServer, user: str, secret: str, **options: str) -> psycopg.Connection:
    return psycopg.connect(url(server, user), password=secret, autocommit=True, **options)


def test_a_password_is_proven_by_scram(server: GuardedServer) -> None:
    with log_in(server, "ada", PASSWORD, require_auth="scram-sha-256") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("ada",)
        connection.execute("INSERT INTO lab.readings VALUES ('a', 1)")


def test_a_token_is_proven_by_scram_as_a_password_is(server: GuardedServer) -> None:
    token = server.token("ben", "scram")
    with log_in(server, "ben", token, require_auth="scram-sha-256") as connection:
        assert connection.execute("SELECT count(*) FROM lab.readings").fetchone() is not None


@pytest.mark.parametrize("user", ["ada", "nobody_here"])
def test_a_wrong_password_and_an_unknown_user_are_refused_alike(server: GuardedServer, user: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="the login was refused") as raised:
        log_in(server, user, "wrong password", require_auth="scram-sha-256")
    assert "unknown" not in str(raised.value)


def test_rights_hold_and_what_is_not_ones_own_is_not_there(server: GuardedServer) -> None:
    with log_in(server, "eve", PASSWORD) as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute("SELECT * FROM lab.readings")
    assert raised.value.sqlstate in ("42501", "42P01", "3F000")


def test_a_right_that_is_taken_ends_at_the_next_statement(server: GuardedServer) -> None:
    with log_in(server, "ben", PASSWORD) as connection:
        connection.execute("SELECT * FROM lab.clicks")
        server.sql("REVOKE SELECT ON TABLE lab.clicks FROM ben")
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT * FROM lab.clicks")
        server.sql("GRANT SELECT ON TABLE lab.clicks TO ben")


NARROWING = {
    "revoked": "REVOKE SELECT ON TABLE lab.revoked FROM ben",
    "hidden": "CREATE POLICY none ON lab.hidden USING (false); ALTER TABLE lab.hidden ENABLE ROW LEVEL SECURITY",
}


@pytest.mark.parametrize("table", NARROWING)
async def test_what_was_read_ahead_ends_with_the_right_to_it(server: GuardedServer, table: str) -> None:
    server.sql(
        f"CREATE TABLE lab.{table} (id BIGINT PRIMARY KEY); GRANT SELECT ON TABLE lab.{table} TO ben;"
        f"INSERT INTO lab.{table} SELECT value FROM generate_series(1, 1000)"
    )
    query = f"SELECT id FROM lab.{table}"
    suspended = await asyncpg.connect(url(server, "ben"), password=PASSWORD)
    with log_in(server, "ben", PASSWORD) as connection:
        connection.execute(f"{query} WHERE id = 7")  # from now on known by its text
        connection.execute(f"DECLARE one CURSOR WITH HOLD FOR {query} WHERE id = 7")
        connection.execute(f"DECLARE many CURSOR WITH HOLD FOR {query}")
        connection.execute("DECLARE named CURSOR WITH HOLD FOR SELECT relname FROM pg_class")
        connection.execute("DECLARE told CURSOR WITH HOLD FOR SELECT table_name FROM system.tables")
        connection.execute("DECLARE other CURSOR WITH HOLD FOR SELECT celsius FROM lab.readings")
        connection.execute("BEGIN")
        connection.execute(f"DECLARE inside CURSOR FOR {query}")
        async with suspended.transaction():
            portal = await suspended.cursor(query)
            assert len(await portal.fetch(10)) == len(connection.execute("FETCH 10 FROM inside").fetchall()) == 10
            server.sql(NARROWING[table])
            with pytest.raises(asyncpg.QueryCanceledError):
                await portal.fetch(10)
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("FETCH 10 FROM inside")
        connection.execute("ROLLBACK")
        for cursor in ("one", "many", "many", "named", "told"):
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute(f"FETCH 10 FROM {cursor}")
        connection.execute("FETCH 10 FROM other")
    await suspended.close()


def test_what_is_read_through_a_view_ends_with_the_right_that_its_owner_lends_and_with_no_other(
    server: GuardedServer,
) -> None:
    server.sql(
        "CREATE TABLE lab.lent (id BIGINT PRIMARY KEY); CREATE TABLE lab.unrelated (id BIGINT PRIMARY KEY);"
        "GRANT SELECT ON TABLE lab.lent TO eve; GRANT SELECT ON TABLE lab.unrelated TO eve;"
        "GRANT CREATE ON NAMESPACE lab TO eve; INSERT INTO lab.lent SELECT value FROM generate_series(1, 100);"
        "EXECUTE AS USER 'eve' CREATE VIEW lab.through AS SELECT id FROM lab.lent;"
        "GRANT SELECT ON TABLE lab.through TO ben"
    )
    with log_in(server, "ben", PASSWORD) as connection:
        connection.execute("DECLARE through CURSOR WITH HOLD FOR SELECT id FROM lab.through")
        assert len(connection.execute("FETCH 10 FROM through").fetchall()) == 10
        server.sql("REVOKE SELECT ON TABLE lab.unrelated FROM eve; REVOKE CREATE ON NAMESPACE lab FROM eve")
        assert len(connection.execute("FETCH 10 FROM through").fetchall()) == 10
        server.sql("REVOKE SELECT ON TABLE lab.lent FROM eve")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("FETCH 10 FROM through")


def test_policies_hold_for_queries_copies_and_runs_of_inserts(server: GuardedServer) -> None:
    server.sql(
        "CREATE TABLE lab.kept (id BIGINT PRIMARY KEY, who TEXT); GRANT SELECT, INSERT ON TABLE lab.kept TO ben;"
        "INSERT INTO lab.kept VALUES (1, 'ben'), (2, 'eve');"
        "CREATE POLICY own ON lab.kept USING (who = CURRENT_USER()); ALTER TABLE lab.kept ENABLE ROW LEVEL SECURITY"
    )
    with log_in(server, "ben", PASSWORD) as connection:
        for _ in range(2):  # by a plan, and as what is known by its text
            assert connection.execute("SELECT * FROM lab.kept WHERE id = %s", (2,)).fetchall() == []
        with connection.cursor().copy("COPY lab.kept TO STDOUT") as copy:
            assert b"".join(map(bytes, copy)) == b"1\tben\n"

        def copy_in() -> None:
            with connection.cursor().copy("COPY lab.kept FROM STDIN") as copy:
                copy.write("3\tben\n4\teve\n")

        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            copy_in()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.cursor().executemany("INSERT INTO lab.kept VALUES (%s, %s)", [(5, "ben"), (6, "eve")])
        assert connection.execute("SELECT count(*) FROM lab.kept").fetchone() == (1,)


def test_a_session_ends_with_its_login(server: GuardedServer) -> None:
    server.sql(f"CREATE USER gone WITH PASSWORD '{PASSWORD}'")
    connection = log_in(server, "gone", PASSWORD)
    server.sql("ALTER USER gone LOCK")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="the login was refused"):
        log_in(server, "gone", PASSWORD)


def test_another_password_is_the_only_one_from_then_on(server: GuardedServer) -> None:
    server.sql(f"CREATE USER carl WITH PASSWORD '{PASSWORD}'")
    server.sql("ALTER USER carl WITH PASSWORD 'another one'")
    with pytest.raises(psycopg.OperationalError, match="the login was refused"):
        log_in(server, "carl", PASSWORD)
    log_in(server, "carl", "another one").close()


def test_users_of_before_log_in_in_clear_from_this_machine_or_by_tls(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue("server")
    server = GuardedServer(tmp_path / "data", ("--auth=on", "--pg-port=0"), {"KALAM_ADMIN_PASSWORD": PASSWORD})
    server.start()
    server.stop()
    with sqlite3.connect(server.data_dir / "kalam.db") as conn:  # as a server left it that kept no verifiers
        conn.execute("DELETE FROM verifiers WHERE user <> ''")
    conn.close()
    server.start(KALAM_TLS_CERT=str(issued.cert), KALAM_TLS_KEY=str(issued.key))
    try:
        with log_in(server, "admin", PASSWORD, require_auth="password", sslmode="disable"):
            pass
        trusted = {"sslmode": "verify-ca", "sslrootcert": str(authority.file)}
        with log_in(server, "admin", PASSWORD, require_auth="password", **trusted) as connection:
            connection.execute(f"ALTER USER admin WITH PASSWORD '{PASSWORD}'")
        with log_in(server, "admin", PASSWORD, require_auth="scram-sha-256", **trusted) as connection:
            assert connection.execute("SHOW ssl").fetchone() == ("on",)
        assert refuses_what_is_stuffed_behind(server)
        assert who_is_let_in_by_tls(server, authority) == ["admin"] * 4
    finally:
        server.kill()


def who_is_let_in_by_tls(server: GuardedServer, authority: Authority) -> list[str]:
    """The user that asyncpg, pg8000, psql and SQLAlchemy log in as, having looked at the certificate."""
    host, port = str(server.announcement["pg_url"]).removeprefix("postgresql://").split(":")
    tls = ssl.create_default_context(cafile=str(authority.file))
    tls.check_hostname = False

    async def by_asyncpg() -> Any:
        connection = await asyncpg.connect(host=host, port=int(port), user="admin", password=PASSWORD, ssl=tls)
        try:
            return await connection.fetchval("SELECT current_user")
        finally:
            await connection.close()

    pure = pg8000.dbapi.connect(user="admin", host=host, port=int(port), password=PASSWORD, ssl_context=tls)
    cursor = pure.cursor()
    cursor.execute("SELECT current_user")
    [by_pg8000] = cursor.fetchone()
    pure.close()
    address = f"{url(server, 'admin')}?sslmode=verify-ca&sslrootcert={authority.file}"
    program = ["psql", "-X", "-At", address, "-c", "SELECT current_user"]
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    by_psql = "admin"  # where there is none
    if shutil.which("psql"):
        by_psql = subprocess.run(
            program, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout.strip()
    engine = sa.create_engine(
        address.replace("postgresql:", "postgresql+psycopg:"), connect_args={"password": PASSWORD}
    )
    with engine.connect() as connection:
        by_sqlalchemy = connection.execute(sa.text("SELECT current_user")).scalar_one()
    engine.dispose()
    return [asyncio.run(by_asyncpg()), by_pg8000, by_psql, by_sqlalchemy]


def refuses_what_is_stuffed_behind(server: GuardedServer) -> bool:
    """Bytes behind an SSLRequest, which the server must not take for what comes encrypted."""
    host, port = str(server.announcement["pg_url"]).removeprefix("postgresql://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(struct.pack(">ii", 8, 80877103) + b"\0\0\0\x08\x04\xd2\x16\x2f")
        answer = raw.recv(1_000)
        return not answer.startswith(b"S")


# SCRAM itself.


def test_scram_agrees_with_the_example_of_its_rfc() -> None:
    import base64

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    exchange = Exchange("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", salt, 4_096)
    exchange._nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"  # noqa: SLF001 - the RFC's
    exchange.first = f"r={exchange._nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"  # noqa: SLF001
    proof = exchange.proof(
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    verifier = make_verifier("pencil", salt, 4_096)
    assert proof.is_of(verifier)
    assert not proof.is_of(make_verifier("pencils", salt, 4_096))
    assert proof.answer(verifier) == "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize("first", ["p=tls-unique,,n=,r=x", "n,n=,r=x", "n,,n=", "n,,m=x,r=abc", ""])
def test_what_is_no_scram_is_refused(first: str) -> None:
    with pytest.raises(BadExchange):
        Exchange(first, b"salt", 4_096)


@pytest.mark.parametrize(
    ("given", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("\u00aa", "a"), ("\u2168", "IX"), ("\x07", "\x07")],
    ids=["soft hyphen", "plain", "feminine", "numeral", "forbidden as it is"],
)
def test_a_secret_is_brought_into_one_form(given: str, prepared: str) -> None:
    assert saslprep(given) == prepared


def test_certificates_are_of_no_use_without_tls(server: GuardedServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        log_in(server, "ada", PASSWORD, sslmode="require")
