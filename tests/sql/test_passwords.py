"""No password of a statement is shown, however it is written."""

from __future__ import annotations

import pytest

from kalam.errors import KalamError, SyntaxFault
from kalam.sql import StatementText, parse_statement
from kalam.sql.text.passwords import without_password_in, without_passwords

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CREATE USER ada WITH PASSWORD '§'", "CREATE USER ada WITH PASSWORD '…'"),
        ("CREATE USER IF NOT EXISTS ada PASSWORD '§' ADMIN", "CREATE USER IF NOT EXISTS ada PASSWORD '…' ADMIN"),
        ("alter  user ada\npassword '§';", "alter  user ada\npassword '…';"),
        ("ALTER USER ada PASSWORD $1", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORD §", "ALTER USER ada PASSWORD '…'"),
        ('ALTER USER "ada" PASSWORD "§"', "ALTER USER \"ada\" PASSWORD '…'"),
        ("ALTER USER ada PASSWORD='§'", "ALTER USER ada '…''…'"),
        ("ALTER USER ada PASSWORD $$§$$", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORD $a$§ $$ §$a$ LOCK", "ALTER USER ada PASSWORD '…' LOCK"),
        ("ALTER USER ada PASSWORD E'§\\'§'", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORD E'§\\';§'; SELECT 'a'", "ALTER USER ada PASSWORD '…'; SELECT 'a'"),
        ("ALTER USER ada PASSWORD '§''§'", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORD '§", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORT '§'", "ALTER USER ada '…' '…'"),
        ("ALTER USER ada '§'", "ALTER USER ada '…'"),
        ("ALTER/**/USER/* § */ada PASSWORD '§'", "ALTER USER ada PASSWORD '…'"),
        ("ALTER USER ada PASSWORD -- §\n '§'", "ALTER USER ada PASSWORD  \n '…'"),
        ("ALTER USER ada /* § */ LOCK", "ALTER USER ada   LOCK"),
        ("ALTER USER ada VALID UNTIL '2030-01-01'", "ALTER USER ada VALID UNTIL '…'"),
        ("CREATE USER ada PASSWORD '§;§'; SELECT 'a'", "CREATE USER ada PASSWORD '…'; SELECT 'a'"),
        (
            "SELECT 1; CREATE USER ada PASSWORD '§'; ALTER USER ben PASSWORD '§'; SELECT 'a'",
            "SELECT 1; CREATE USER ada PASSWORD '…'; ALTER USER ben PASSWORD '…'; SELECT 'a'",
        ),
        ("EXECUTE AS USER 'ada' ALTER USER ada PASSWORD '§'", "EXECUTE AS USER 'ada' ALTER USER ada PASSWORD '…'"),
        ("EXPLAIN CREATE USER ada PASSWORD '§'", "EXPLAIN CREATE USER ada PASSWORD '…'"),
        ("CREATE USER", "CREATE USER"),
        ("CREATE USER '§'", "CREATE USER '…'"),
        ("SELECT password FROM app.users WHERE password = 'a'", "SELECT password FROM app.users WHERE password = 'a'"),
        ("CREATE TABLE app.user (id BIGINT)", "CREATE TABLE app.user (id BIGINT)"),
        ("", ""),
    ],
)
def test_of_a_user_the_name_and_the_keywords_are_shown(text: str, shown: str) -> None:
    assert without_passwords(text.replace("§", SECRET)) == shown


def test_a_text_that_is_cut_anywhere_shows_nothing_of_it() -> None:
    text = f"ALTER USER ada PASSWORD '{SECRET}' LOCK; CREATE USER ben WITH PASSWORD $t${SECRET}$t$"
    for end in range(len(text)):
        assert "hunt" not in without_passwords(text[:end]), end


def test_much_text_is_looked_through_in_time_that_grows_with_it() -> None:
    hostile = "ALTER USER ada PASSWORD " + "'" * 20_001 + "$a$" * 10_000 + "/*" * 10_000 + "CREATE USER" * 10_000
    assert len(without_passwords(hostile)) < len(hostile)


@pytest.mark.parametrize(
    "tail",
    [
        f"PASSWORD {SECRET}",
        f"PASSWORD '{SECRET}' '{SECRET}'",
        f"'{SECRET}'",
        f'PASSWORD "{SECRET}"',
        f"PASSWORD = '{SECRET}'",
        f"PASSWORD ('{SECRET}')",
        f"PASSWORD '{SECRET}",
        f"PASSWORD '{SECRET}' {SECRET}",
        f"PASSWORD '\\n\t{SECRET}' 1",
        f"{SECRET}",
        f"PASSWORD '{SECRET}' VALID '{SECRET}'",
    ],
)
def test_an_error_tells_nothing_of_it(tail: str) -> None:
    for head in ("CREATE USER ada ", "ALTER USER ada ", "CREATE USER IF NOT EXISTS ada WITH "):
        with pytest.raises(KalamError) as caught:
            parse_statement(StatementText(head + tail))
        without_password_in(caught.value, head + tail)
        for shown in (str(caught.value), str(caught.value.problem()), repr(caught.value)):
            assert "hunt" not in shown


def test_other_errors_stay_as_they_are() -> None:
    for statement in ("SELECT 'hunter2hunter2", "CREATE TABLE app.users (id BIGINT) hunter2hunter2"):
        with pytest.raises(SyntaxFault) as caught:
            parse_statement(StatementText(statement))
        before = caught.value.problem()
        without_password_in(caught.value, statement)
        assert caught.value.problem() == before
