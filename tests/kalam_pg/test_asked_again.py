"""What is asked again is known by its text, and means what it means now: after ALTER, GRANT, SET and in any block."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import psycopg
import pytest
from guarded_server import PASSWORD, GuardedServer
from pg_raw import Raw
from server_process import ServerProcess

FORMS = ("named", "parsed each time", "with a literal", "simple")
"""The ways in which drivers ask for a row by its key."""


@pytest.fixture(scope="module", autouse=True)
def namespaces(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as opened:
        opened.execute("CREATE NAMESPACE again")
        opened.execute("CREATE NAMESPACE again_other")
        for namespace, value in (("again", "here"), ("again_other", "there")):
            opened.execute(f"CREATE SHARED TABLE {namespace}.t (id BIGINT PRIMARY KEY, v TEXT)")
            opened.execute(f"INSERT INTO {namespace}.t VALUES (1, '{value}'), (2, 'it''s')")
        opened.execute("CREATE SHARED TABLE again.named (name TEXT PRIMARY KEY, n INT)")
        opened.execute("INSERT INTO again.named VALUES ('it''s', 1), ('7', 7)")


@pytest.fixture
def raw(pg_server: ServerProcess) -> Iterator[Raw]:
    client = Raw(pg_server)
    yield client
    client.close()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def asked(form: str, head: str, key: int, *, whole: bool = False) -> list[bytes]:
    """The messages of a question in one of the FORMS; ``whole`` has the statement described, not the portal."""
    text = f"{head} WHERE id = {key}" if form in ("with a literal", "simple") else f"{head} WHERE id = $1"
    if form == "simple":
        return [message(b"Q", text.encode() + b"\0")]
    name = b"s\0" if form == "named" else b"\0"
    written = b"%d" % key
    cells = b"\0\1" + struct.pack(">i", len(written)) + written if form != "with a literal" else b"\0\0"
    parse = [] if form == "named" else [message(b"P", name + text.encode() + b"\0\0\0")]
    described = message(b"D", b"S" + name if whole else b"P\0")
    bind = message(b"B", b"\0" + name + b"\0\0" + cells + b"\0\1\0\0")
    middle = [described, bind] if whole else [bind, described]
    return [*parse, *middle, message(b"E", b"\0\0\0\0\0"), message(b"S", b"")]


def prepare(raw: Raw, head: str) -> None:
    raw.send(b"P", b"s\0" + f"{head} WHERE id = $1".encode() + b"\0\0\0")
    raw.send(b"S")
    raw.until(b"Z")


def answer(raw: Raw, sent: list[bytes]) -> list[tuple[bytes, bytes]]:
    raw.socket.sendall(b"".join(sent))
    return [each for each in raw.until(b"Z") if each[0] not in (b"1", b"2", b"t")]


def row(*values: bytes) -> bytes:
    return struct.pack(">h", len(values)) + b"".join(struct.pack(">i", len(each)) + each for each in values)


def rows(answered: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [body for kind, body in answered if kind == b"D"]


def code(answered: list[tuple[bytes, bytes]]) -> str:
    (told,) = [body for kind, body in answered if kind == b"E"]
    return next(part[1:] for part in told.split(b"\0") if part[:1] == b"C").decode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("whole", [False, True])
def test_every_time_is_as_the_first(raw: Raw, form: str, whole: bool) -> None:
    prepare(raw, "SELECT v, id FROM again.t")
    for key, found in ((1, b"here"), (2, b"it's"), (3, None)):
        sent = asked(form, "SELECT v, id FROM again.t", key, whole=whole)
        first, *others = (answer(raw, sent) for _ in range(4))
        assert others == [first] * 3
        assert [kind for kind, _ in first] == [b"T", *([b"D"] if found else []), b"C", b"Z"]
        assert rows(first) == ([] if found is None else [row(found, b"%d" % key)])
    sent = asked(form, "SELECT v, id FROM again.t", 1)
    raw.socket.sendall(b"".join(sent) * 100)
    alone = answer(raw, [])
    assert [answer(raw, []) for _ in range(99)] == [alone] * 99


@pytest.mark.parametrize("form", FORMS)
def test_messages_may_come_in_pieces(raw: Raw, form: str) -> None:
    prepare(raw, "SELECT v FROM again.t")
    whole = [answer(raw, asked(form, "SELECT v FROM again.t", 1)) for _ in range(3)][-1]
    data = b"".join(asked(form, "SELECT v FROM again.t", 1))
    for place in range(1, len(data)):
        raw.socket.sendall(data[:place])
        raw.socket.sendall(data[place:])
        assert [each for each in raw.until(b"Z") if each[0] not in (b"1", b"2", b"t")] == whole


@pytest.mark.parametrize("form", FORMS[1:])
def test_an_altered_table_is_described_as_it_is(raw: Raw, connection: psycopg.Connection, form: str) -> None:
    table = f"again.altered_{FORMS.index(form)}"
    connection.execute(f"CREATE SHARED TABLE {table} (id BIGINT PRIMARY KEY, v TEXT)")
    connection.execute(f"INSERT INTO {table} VALUES (1, 'x')")
    sent = asked(form, f"SELECT * FROM {table}", 1)
    before = [answer(raw, sent)[0] for _ in range(3)][-1]
    connection.execute(f"ALTER TABLE {table} ADD COLUMN w TEXT")
    described, *others = answer(raw, sent)
    assert b"w\0" in described[1]
    assert described != before
    assert others[0][1][:2] == described[1][:2]
    connection.execute(f"DROP TABLE {table}")
    assert code(answer(raw, sent)) == "42P01"


def test_a_named_statement_over_an_altered_table_is_refused(raw: Raw, connection: psycopg.Connection) -> None:
    connection.execute("CREATE SHARED TABLE again.outdated (id BIGINT PRIMARY KEY, v TEXT)")
    connection.execute("INSERT INTO again.outdated VALUES (1, 'x')")
    prepare(raw, "SELECT * FROM again.outdated")
    sent = asked("named", "SELECT * FROM again.outdated", 1)
    assert [len(rows(answer(raw, sent))) for _ in range(3)] == [1, 1, 1]
    connection.execute("ALTER TABLE again.outdated ADD COLUMN w TEXT")
    assert code(answer(raw, sent)) == "0A000"


@pytest.mark.parametrize("form", FORMS)
def test_the_search_path_counts_as_it_is(raw: Raw, form: str) -> None:
    raw.query("SET search_path = again")
    prepare(raw, "SELECT v FROM t")
    sent = asked(form, "SELECT v FROM t", 1)
    assert [rows(answer(raw, sent)) for _ in range(3)] == [[row(b"here")]] * 3
    raw.query("SET search_path = again_other")
    assert rows(answer(raw, sent)) == [row(b"there")]
    raw.query("SET search_path = again_late")
    assert code(answer(raw, sent)) in ("42P01", "3F000")
    raw.query("CREATE NAMESPACE again_late")
    raw.query("CREATE SHARED TABLE again_late.t (id BIGINT PRIMARY KEY, v TEXT)")
    raw.query("INSERT INTO again_late.t VALUES (1, 'late')")
    assert rows(answer(raw, sent)) == [row(b"late")]
    raw.query("DROP TABLE again_late.t")
    raw.query("DROP NAMESPACE again_late")


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_block_refuses_what_is_known(raw: Raw, form: str) -> None:
    prepare(raw, "SELECT v FROM again.t")
    sent = asked(form, "SELECT v FROM again.t", 1)
    assert [rows(answer(raw, sent)) for _ in range(2)] == [[row(b"here")]] * 2
    raw.query("BEGIN")
    assert answer(raw, sent)[-1] == (b"Z", b"T")
    raw.query("SELECT nothing_there")
    failed = answer(raw, sent)
    assert (code(failed), failed[-1]) == ("25P02", (b"Z", b"E"))
    raw.query("ROLLBACK")
    assert (rows(answer(raw, sent)), answer(raw, sent)[-1]) == ([row(b"here")], (b"Z", b"I"))


def test_behind_an_error_everything_known_is_skipped_up_to_sync(raw: Raw) -> None:
    sent = asked("parsed each time", "SELECT v FROM again.t", 1)
    assert [rows(answer(raw, sent)) for _ in range(2)] == [[row(b"here")]] * 2
    raw.socket.sendall(message(b"B", b"\0none\0\0\0\0\0\0\0") + b"".join(sent))
    assert [kind for kind, _ in raw.until(b"Z")] == [b"E", b"Z"]
    assert rows(answer(raw, sent)) == [row(b"here")]


def test_a_portal_that_has_ended_gives_nothing_more(raw: Raw) -> None:
    raw.query("BEGIN")
    *first, sync = asked("parsed each time", "SELECT v FROM again.t", 1)
    for _ in range(3):
        answered = answer(raw, [*first, message(b"E", b"\0\0\0\0\0"), sync])
        assert [body for kind, body in answered if kind == b"C"] == [b"SELECT 1\0", b"SELECT 0\0"]
    raw.query("COMMIT")


@pytest.mark.parametrize(
    "cut", [(b"D", b"P"), (b"D", b"S"), (b"D", b""), (b"E", b""), (b"E", b"\0\0"), (b"E", b"\0\0\0\0")]
)
def test_a_message_that_ends_too_early_is_refused_also_where_all_is_known(raw: Raw, cut: tuple[bytes, bytes]) -> None:
    for whole in (True, False):
        messages = asked("parsed each time", "SELECT v FROM again.t", 1, whole=whole)
        for _ in range(3):
            assert rows(answer(raw, messages)) == [row(b"here")]
        at = next(place for place, each in enumerate(messages) if each[:1] == cut[0])
        assert code(answer(raw, [*messages[:at], message(*cut), *messages[at:]])) == "08P01"


def test_an_unnamed_statement_is_gone_behind_a_simple_query(raw: Raw) -> None:
    parse, *others = asked("parsed each time", "SELECT v FROM again.t", 1)
    simple = asked("simple", "SELECT v FROM again.t", 1)
    for _ in range(3):
        assert rows(answer(raw, [parse, *others])) == [row(b"here")]
        assert rows(answer(raw, others)) == [row(b"here")]
        assert rows(answer(raw, simple)) == [row(b"here")]
        assert code(answer(raw, others)) == "26000"


def test_rows_of_an_insert_that_wait_are_stored_before_what_is_known_is_asked(raw: Raw) -> None:
    sent = asked("parsed each time", "SELECT v FROM again.t", 50)
    assert [rows(answer(raw, sent)) for _ in range(2)] == [[], []]
    raw.send(b"P", b"i\0INSERT INTO again.t VALUES (50, $1)\0\0\0")
    raw.send(b"S")
    raw.until(b"Z")
    insert = message(b"B", b"\0i\0\0\0\0\1\0\0\0\3new\0\0") + message(b"E", b"\0\0\0\0\0")
    assert rows(answer(raw, [insert, *sent])) == [row(b"new")]
    raw.query("DELETE FROM again.t WHERE id = 50")


@pytest.mark.parametrize(
    ("literal", "found"), [("'it''s'", [(1,)]), ("'7'", [(7,)]), ("7", None), ("''", []), ("'x''", None)]
)
def test_a_literal_is_read_as_it_is_written(
    connection: psycopg.Connection, literal: str, found: list[tuple[int]] | None
) -> None:
    def ask(condition: str) -> object:
        try:
            return connection.execute(f"SELECT n FROM again.named WHERE {condition}name = {literal}").fetchall()
        except psycopg.Error as exc:
            return exc.sqlstate

    connection.execute("SELECT n FROM again.named WHERE name = 'x'")
    planned = ask("true AND ")
    assert [ask("") for _ in range(3)] == [planned] * 3
    assert found is None or planned == found


def test_the_name_of_the_database_before_a_table_is_known_as_well(raw: Raw) -> None:
    for form in FORMS[1:]:
        sent = asked(form, "SELECT v FROM kalam.again.t", 1)
        assert [rows(answer(raw, sent)) for _ in range(3)] == [[row(b"here")]] * 3


@pytest.mark.parametrize("form", FORMS)
def test_a_right_that_is_taken_ends_what_is_known(guarded: GuardedServer, form: str) -> None:
    place = FORMS.index(form)
    guarded.sql(
        f"CREATE TABLE lab.known_{place} (id BIGINT PRIMARY KEY, v TEXT);"
        f"GRANT SELECT ON TABLE lab.known_{place} TO ben;"
        f"INSERT INTO lab.known_{place} VALUES (1, 'x'), (2, 'y')"
    )
    url = str(guarded.announcement["pg_url"]).replace("//", "//ben@") + "/kalam"
    text = f"SELECT v FROM lab.known_{place} WHERE id = "
    with psycopg.connect(url, password=PASSWORD, autocommit=True) as connection:
        pgconn = connection.pgconn
        pgconn.prepare(b"s", f"{text}$1".encode())

        def ask(key: int) -> object:
            if form == "named":
                result = pgconn.exec_prepared(b"s", [b"%d" % key])
            elif form == "simple":
                result = pgconn.exec_(f"{text}{key}".encode())
            else:
                literal = form == "with a literal"
                values = [] if literal else [b"%d" % key]
                result = pgconn.exec_params(f"{text}{key if literal else '$1'}".encode(), values)
            code = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            return code.decode() if code else [result.get_value(at, 0) for at in range(result.ntuples)]

        assert [ask(1), ask(2), ask(1), ask(2)] == [[b"x"], [b"y"], [b"x"], [b"y"]]
        guarded.sql(f"CREATE POLICY one ON lab.known_{place} USING (id = 1)")
        guarded.sql(f"ALTER TABLE lab.known_{place} ENABLE ROW LEVEL SECURITY")
        assert [ask(1), ask(2)] == [[b"x"], []]
        guarded.sql(f"REVOKE SELECT ON TABLE lab.known_{place} FROM ben")
        assert ask(1) in ("42P01", "42501")
        guarded.sql(f"GRANT SELECT ON TABLE lab.known_{place} TO ben")
        assert [ask(1), ask(2)] == [[b"x"], []]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    made = GuardedServer.started(tmp_path_factory.mktemp("guarded") / "data", "--pg-port=0")
    yield made
    made.kill()
