"""ALTER COLUMN on tables with rows hot and cold; SHOW COLUMNS and COMMENT ON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server_process import ServerProcess, SqlFailed

STATES = ("hot", "cold", "both")
COLUMNS = (
    "id SMALLINT PRIMARY KEY, s SMALLINT DEFAULT 3, i INT, f FLOAT DEFAULT 0.1, d DECIMAL(6,2), v VARCHAR(2) NOT NULL"
)
WIDENED = {
    "id": "BIGINT",
    "s": "INT",
    "i": "DECIMAL(14,3)",
    "f": "DOUBLE",
    "d": "DECIMAL(12,4)",
    "v": "VARCHAR(10)",
}
F32 = 0.10000000149011612


@pytest.fixture(scope="module")
def ns(shared_server: ServerProcess) -> Iterator[str]:
    shared_server.sql("CREATE NAMESPACE wider")
    yield "wider"
    shared_server.sql("DROP NAMESPACE wider CASCADE")


def make(server: ServerProcess, table: str, state: str, kind: str = "SHARED") -> str:
    """A table with rows 1 and 2 in the state that is asked for, and every column of a wider type since."""
    server.sql(f"CREATE {kind} TABLE {table} ({COLUMNS})")
    server.sql(f"INSERT INTO {table} VALUES (1, 1, 10, 0.1, 1.25, 'aa')")
    if state == "both":
        server.sql(f"FLUSH TABLE {table}")
    server.sql(f"INSERT INTO {table} VALUES (2, NULL, NULL, NULL, NULL, 'bb')")
    if state == "cold":
        server.sql(f"FLUSH TABLE {table}")
        for _ in range(3):  # so that what is kept for reads by key is of the former types
            assert server.sql(f"SELECT i, d FROM {table} WHERE id = 1") == [[10, "1.25"]]
    server.sql("; ".join(f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {kind}" for name, kind in WIDENED.items()))
    return table


def code_of(server: ServerProcess, text: str) -> str:
    with pytest.raises(SqlFailed) as failed:
        server.sql(text)
    return str(failed.value.code)


@pytest.mark.parametrize("state", STATES)
def test_rows_read_the_same_in_wider_types(shared_server: ServerProcess, ns: str, state: str) -> None:
    t, sql = make(shared_server, f"{ns}.{state}", state), shared_server.sql
    first, second = [1, 1, "10.000", F32, "1.2500", "aa"], [2, None, None, None, None, "bb"]
    assert sql(f"SELECT id, s, i, f, d, v FROM {t} ORDER BY id") == [first, second]
    assert [sql(f"SELECT id, s, i, f, d, v FROM {t} WHERE id = {n}") for n in (1, 2)] == [[first], [second]]
    assert sql(f"SELECT id FROM {t} WHERE i = 10 AND d = 1.25 AND f > 0.1") == [[1]]
    assert sql(f"SELECT sum(i) + sum(d) FROM {t}") == [["11.2500"]]
    large = [5_000_000_000, 70_000, "12345678901.001", 0.1, "12345678.0001", "a longer"]
    sql(f"INSERT INTO {t} VALUES ($1, $2, $3, $4, $5, $6)", *large)
    assert code_of(shared_server, f"INSERT INTO {t} (id, v) VALUES (1, 'x')") == "duplicate_key"
    sql(f"UPDATE {t} SET d = d + 0.0001, i = i / 8 WHERE id = 1; DELETE FROM {t} WHERE id = 2")
    expected = [[1, 1, "1.250", F32, "1.2501", "aa"], large]
    for upkeep in ("FLUSH", "COMPACT"):
        assert sql(f"SELECT id, s, i, f, d, v FROM {t} ORDER BY id") == expected
        assert sql(f"SELECT id, s, i, f, d, v FROM {t} WHERE id = {large[0]}") == [large]
        sql(f"{upkeep} TABLE {t}")
    assert sql(f"SELECT id, s, i, f, d, v FROM {t} ORDER BY id") == expected
    assert sql(f"SELECT id, v FROM {t} WHERE _deleted") == [[2, "bb"]]


def test_each_user_has_the_wider_columns(shared_server: ServerProcess, ns: str) -> None:
    t = f"{ns}.mine"
    shared_server.sql(f"CREATE USER TABLE {t} (id INT PRIMARY KEY, n INT)")
    for user in ("ann", "bob"):
        shared_server.sql(f"INSERT INTO {t} VALUES (1, 7)", user=user)
    shared_server.sql(f"FLUSH TABLE {t}; ALTER TABLE {t} ALTER COLUMN n TYPE DECIMAL(12,1)")
    for user in ("ann", "bob"):
        assert shared_server.sql(f"SELECT n FROM {t}", user=user) == [["7.0"]]


def test_a_default_is_set_for_later_rows_and_dropped(shared_server: ServerProcess, ns: str) -> None:
    t, sql = f"{ns}.defaults", shared_server.sql
    sql(f"CREATE TABLE {t} (id INT PRIMARY KEY, d DECIMAL(6,2), at TIMESTAMP, v VARCHAR(3) NOT NULL)")
    sql(f"INSERT INTO {t} VALUES (1, NULL, NULL, 'a')")
    sql(f"ALTER TABLE {t} ALTER d SET DEFAULT 1.5; ALTER TABLE {t} ALTER COLUMN v SET DEFAULT 'x'")
    sql(f"ALTER TABLE {t} ALTER at SET DEFAULT NOW(); INSERT INTO {t} (id) VALUES (2)")
    assert sql(f"SELECT id, d, v, at IS NULL FROM {t} ORDER BY id") == [[1, None, "a", True], [2, "1.50", "x", False]]
    assert code_of(shared_server, f"ALTER TABLE {t} ALTER v SET DEFAULT 'long'") == "invalid_value"
    assert code_of(shared_server, f"ALTER TABLE {t} ALTER v SET DEFAULT 1 + 1") == "invalid_value"
    sql(f"ALTER TABLE {t} ALTER v DROP DEFAULT")
    assert code_of(shared_server, f"INSERT INTO {t} (id) VALUES (3)") == "not_null_violation"
    sql(f"ALTER TABLE {t} ALTER v DROP NOT NULL; INSERT INTO {t} (id) VALUES (3)")
    assert sql(f"SELECT v FROM {t} WHERE id = 3") == [[None]]


def test_a_default_and_the_value_of_old_rows_follow_the_type(shared_server: ServerProcess, ns: str) -> None:
    t, sql = f"{ns}.filled", shared_server.sql
    sql(f"CREATE TABLE {t} (id INT PRIMARY KEY); INSERT INTO {t} VALUES (1)")
    sql(f"ALTER TABLE {t} ADD COLUMN n INT DEFAULT 4; ALTER TABLE {t} ADD COLUMN f FLOAT DEFAULT 0.1")
    sql(f"ALTER TABLE {t} ALTER n TYPE DECIMAL(12,2); ALTER TABLE {t} ALTER f TYPE DOUBLE")
    sql(f"INSERT INTO {t} (id) VALUES (2)")
    assert sql(f"SELECT n, f FROM {t} ORDER BY id") == [["4.00", F32], ["4.00", 0.1]]


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ("INT", "SMALLINT"),
        ("BIGINT", "DECIMAL(18,0)"),
        ("INT", "DECIMAL(12,3)"),
        ("INT", "TEXT"),
        ("DOUBLE", "FLOAT"),
        ("FLOAT", "DECIMAL(38,10)"),
        ("DECIMAL(6,2)", "DECIMAL(7,4)"),
        ("TEXT", "VARCHAR(9)"),
        ("VARCHAR(9)", "VARCHAR(8)"),
        ("TIMESTAMP", "DATE"),
        ("TEXT", "UUID"),
    ],
)
def test_a_type_that_does_not_hold_all_values_is_refused(
    shared_server: ServerProcess, ns: str, declared: str, wanted: str
) -> None:
    t = f"{ns}.narrow"
    shared_server.sql(f"CREATE TABLE {t} (c {declared})")
    assert code_of(shared_server, f"ALTER TABLE {t} ALTER COLUMN c TYPE {wanted}") == "unsupported"
    shared_server.sql(f"DROP TABLE {t}")


def test_keys_and_streams_stay_as_they_are(shared_server: ServerProcess, ns: str) -> None:
    shared_server.sql(f"CREATE TABLE {ns}.k (id INT PRIMARY KEY, s INT) WITH (subject_key = 's')")
    shared_server.sql(f"CREATE STREAM TABLE {ns}.ev (id INT NOT NULL)")
    for refused in (
        f"ALTER TABLE {ns}.k ALTER COLUMN id TYPE DECIMAL(12,0)",
        f"ALTER TABLE {ns}.k ALTER COLUMN s TYPE DECIMAL(12,0)",
        f"ALTER TABLE {ns}.k ALTER COLUMN id DROP NOT NULL",
        f"ALTER TABLE {ns}.ev ALTER COLUMN id TYPE BIGINT",
    ):
        assert code_of(shared_server, refused) == "unsupported"
    assert code_of(shared_server, f"ALTER TABLE {ns}.k ALTER COLUMN nothing DROP DEFAULT") == "column_not_found"


def test_comments_are_shown_and_follow_their_columns(shared_server: ServerProcess, ns: str) -> None:
    t, sql = f"{ns}.said", shared_server.sql
    sql(f"CREATE TABLE {t} (id INT PRIMARY KEY, a TEXT DEFAULT 'x', b INT)")
    sql(f"COMMENT ON TABLE {t} IS 'what it''s for'; COMMENT ON COLUMN {t}.a IS 'first'")
    sql("COMMENT ON COLUMN said.b IS 'gone'", namespace=ns)
    sql(f"ALTER TABLE {t} RENAME COLUMN a TO c; ALTER TABLE {t} RENAME TO told; COMMENT ON COLUMN {ns}.told.b IS NULL")
    assert sql(f"SHOW COLUMNS FROM {ns}.told") == [
        ["id", "INT", False, None, True, None],
        ["c", "TEXT", True, "'x'", False, "first"],
        ["b", "INT", True, None, False, None],
    ]
    assert sql("SELECT comment FROM system.tables WHERE table_name = 'told'") == [["what it's for"]]
    found = sql("SELECT column_name, comment FROM system.columns WHERE table_name = 'told' ORDER BY ordinal")
    assert found == [["id", None], ["c", "first"], ["b", None]]
    described = [row[3] for row in sql(f"DESCRIBE {ns}.told") if "comment" in row[:2]]
    assert described == ["comment = what it's for", "c = first"]
    assert code_of(shared_server, f"COMMENT ON COLUMN {ns}.told.a IS 'x'") == "column_not_found"
    assert code_of(shared_server, f"COMMENT ON TABLE {ns}.nothing IS 'x'") == "table_not_found"
