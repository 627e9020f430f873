from __future__ import annotations

import pytest

from kalam.errors import ColumnNotFound, InvalidName, InvalidOption, InvalidValue, KalamError, SyntaxFault, Unsupported
from kalam.schema import Column, DataType, Default, DefaultKind, TableKind, TypeName
from kalam.sql import parse_statement
from kalam.sql.text.alterations import (
    AddColumn,
    ChangeColumns,
    DropColumn,
    DropNotNull,
    RenameColumn,
    RenameTable,
    SetDefault,
    SetOptions,
    SetType,
)
from kalam.sql.text.statements import (
    AlterTable,
    CreateNamespace,
    CreateTable,
    DropNamespace,
    DropTable,
    TableRef,
)

BIGINT = DataType(name=TypeName.BIGINT)
TEXT = DataType(name=TypeName.TEXT)
NOW = Default(kind=DefaultKind.NOW)


def created(text: str) -> CreateTable:
    statement = parse_statement(text)
    assert isinstance(statement, CreateTable)
    return statement


def column(definition: str) -> Column:
    return created(f"CREATE STREAM TABLE t ({definition})").columns[0]


def literal(value: object) -> Default:
    return Default(kind=DefaultKind.LITERAL, literal=value)


def test_namespaces_are_created_and_dropped() -> None:
    assert parse_statement("CREATE NAMESPACE app") == CreateNamespace("app", if_not_exists=False)
    assert parse_statement("CREATE SCHEMA IF NOT EXISTS app") == CreateNamespace("app", if_not_exists=True)
    assert parse_statement("DROP SCHEMA app CASCADE") == parse_statement("DROP NAMESPACE app CASCADE")
    assert parse_statement("create namespace if not exists App") == CreateNamespace("app", if_not_exists=True)
    assert parse_statement("DROP NAMESPACE app") == DropNamespace("app", if_exists=False, cascade=False)
    assert parse_statement("DROP NAMESPACE IF EXISTS app CASCADE") == DropNamespace("app", if_exists=True, cascade=True)


@pytest.mark.parametrize(
    "name", ["system", "information_schema", "pg_catalog", "kalam", '"App"', "_a", '"a b"', "a" * 64, '""']
)
def test_a_reserved_or_impossible_namespace_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_statement(f"CREATE NAMESPACE {name}")


def test_a_stream_table_has_the_declared_columns_and_no_key() -> None:
    table = created("CREATE STREAM TABLE app.clicks (Id BIGINT NOT NULL, \"order\" TEXT DEFAULT 'it''s', at TIMESTAMP)")
    assert table.ref == TableRef("app", "clicks")
    assert (table.kind, table.key, table.if_not_exists) == (TableKind.STREAM, (), False)
    assert table.columns == (
        Column(column_id=1, name="id", type=BIGINT, nullable=False),
        Column(column_id=2, name="order", type=TEXT, default=literal("it's")),
        Column(column_id=3, name="at", type=DataType(name=TypeName.TIMESTAMP)),
    )


def test_a_table_without_a_kind_is_shared() -> None:
    table = created("CREATE TABLE IF NOT EXISTS t (id UUID PRIMARY KEY)")
    assert (table.kind, table.key, table.if_not_exists) == (TableKind.SHARED, ("id",), True)
    assert table.columns[0].nullable is False


@pytest.mark.parametrize("kind", ["SHARED", "USER"])
def test_a_stored_table_without_a_key_gets_row_id(kind: str) -> None:
    table = created(f"CREATE {kind} TABLE t (a TEXT)")
    default = Default(kind=DefaultKind.SNOWFLAKE_ID)
    assert table.key == ("_row_id",)
    assert table.columns[1] == Column(column_id=2, name="_row_id", type=BIGINT, nullable=False, default=default)


def test_the_key_can_stand_behind_the_columns() -> None:
    assert created("CREATE TABLE t (a TEXT, b DATE, PRIMARY KEY (b))").key == ("b",)


def test_a_key_can_have_several_columns_none_of_which_is_null() -> None:
    table = created("CREATE TABLE t (a TEXT, PRIMARY KEY (C, a), b DATE, c UUID)")
    assert table.key == ("c", "a")
    assert [column.nullable for column in table.columns] == [False, True, False]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("BOOLEAN BOOL", TypeName.BOOLEAN),
        ("SMALLINT INT2 TINYINT", TypeName.SMALLINT),
        ("INT INTEGER INT4", TypeName.INT),
        ("BIGINT INT8", TypeName.BIGINT),
        ("FLOAT REAL FLOAT4", TypeName.FLOAT),
        ("DOUBLE FLOAT8", TypeName.DOUBLE),
        ("TEXT STRING VARCHAR", TypeName.TEXT),
        ("BLOB BYTEA BYTES VARBINARY", TypeName.BLOB),
        ("TIMESTAMP TIMESTAMPTZ DATETIME", TypeName.TIMESTAMP),
        ("DATE", TypeName.DATE),
        ("JSON JSONB", TypeName.JSON),
        ("UUID", TypeName.UUID),
    ],
)
def test_types_have_postgresql_s_names_too(written: str, name: TypeName) -> None:
    for alias in written.split():
        assert column(f"a {alias.lower()}").type == DataType(name=name)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("DOUBLE PRECISION", "DOUBLE"),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP"),
        ("TIMESTAMP(6) WITHOUT TIME ZONE", "TIMESTAMP"),
        ("DECIMAL", "DECIMAL(38,10)"),
        ("NUMERIC(12)", "DECIMAL(12,0)"),
        ("DECIMAL(38, 38)", "DECIMAL(38,38)"),
        ("VARCHAR(20)", "VARCHAR(20)"),
        ("CHARACTER VARYING(20)", "VARCHAR(20)"),
        ("CHARACTER VARYING", "TEXT"),
        ("CHAR(3)", "VARCHAR(3)"),
        ("CHAR", "VARCHAR(1)"),
    ],
)
def test_types_of_several_words_and_sizes(written: str, shown: str) -> None:
    assert str(column(f"a {written} NOT NULL").type) == shown


@pytest.mark.parametrize(
    "written",
    [
        *("MONEY", "SERIAL", "TIME", "INTERVAL", "INT[]", "ARRAY<INT>", "TEXTT", '"int"'),
        *("DECIMAL(39,0)", "DECIMAL(0)", "DECIMAL(5,6)", "DECIMAL(1,1,1)", "VARCHAR(0)", "TIMESTAMP(3)", "INT(11)"),
    ],
)
def test_other_types_are_refused(written: str) -> None:
    with pytest.raises(Unsupported) as caught:
        column(f"a {written}")
    assert caught.value.fields["line"] == 1


def test_an_unknown_type_is_told_which_types_there_are() -> None:
    with pytest.raises(Unsupported, match="BOOLEAN, SMALLINT, INT") as caught:
        column("a BIGNIT")
    assert caught.value.fields["hint"] == "did you mean BIGINT?"


@pytest.mark.parametrize(
    ("definition", "value"),
    [
        ("BOOLEAN DEFAULT TRUE", True),
        ("INT DEFAULT -5", -5),
        ("DOUBLE DEFAULT 5", 5.0),
        ("DOUBLE DEFAULT 'NaN'", "NaN"),
        ("DECIMAL(5,2) DEFAULT 1.50", "1.5"),
        ("DECIMAL(5,2) DEFAULT '-001'", "-1"),
        ("TEXT DEFAULT E'a\\nb'", "a\nb"),
        ("BLOB DEFAULT X'ff00'", "/wA="),
        ("BLOB DEFAULT '/wA='", "/wA="),
        ("TIMESTAMP DEFAULT '2024-01-31T12:00:00+02:00'", "2024-01-31T10:00:00.000000Z"),
        ("TIMESTAMP DEFAULT TIMESTAMP '2024-01-31 12:00:00'", "2024-01-31T12:00:00.000000Z"),
        ("TIMESTAMP DEFAULT 1500", "1970-01-01T00:00:01.500000Z"),
        ("DATE DEFAULT DATE '2024-01-31'", "2024-01-31"),
        ("JSON DEFAULT '{\"a\": [1]}'", {"a": [1]}),
        ("JSON DEFAULT 5", 5),
        ("UUID DEFAULT 'F47AC10B-58CC-4372-A567-0E02B2C3D479'", "f47ac10b-58cc-4372-a567-0e02b2c3d479"),
    ],
)
def test_a_literal_default_is_kept_as_json_carries_it(definition: str, value: object) -> None:
    default = column(f"a {definition} NOT NULL").default
    assert default == literal(value)
    assert default is not None
    assert type(default.literal) is type(value)


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ("TIMESTAMP DEFAULT NOW()", DefaultKind.NOW),
        ("TIMESTAMP DEFAULT current_timestamp", DefaultKind.NOW),
        ("BIGINT DEFAULT SNOWFLAKE_ID()", DefaultKind.SNOWFLAKE_ID),
        ("UUID DEFAULT UUID_V7()", DefaultKind.UUID_V7),
        ("TEXT DEFAULT uuid_v7( )", DefaultKind.UUID_V7),
        ("VARCHAR(64) DEFAULT CURRENT_USER()", DefaultKind.CURRENT_USER),
    ],
)
def test_four_functions_are_defaults(definition: str, kind: DefaultKind) -> None:
    assert column(f"a {definition}").default == Default(kind=kind)


def test_a_null_default_is_none() -> None:
    assert column("a TEXT DEFAULT NULL").default is None


@pytest.mark.parametrize(
    "definition",
    [
        *(
            "INT DEFAULT 'x'",
            "INT DEFAULT 1.5",
            "INT DEFAULT 2147483648",
            "SMALLINT DEFAULT -32769",
            "INT DEFAULT TRUE",
        ),
        *(
            "BOOLEAN DEFAULT 1",
            "TEXT DEFAULT 1",
            "VARCHAR(2) DEFAULT 'abc'",
            "FLOAT DEFAULT 1e39",
            "DOUBLE DEFAULT 'x'",
        ),
        *(
            "DECIMAL(3,2) DEFAULT 10",
            "DECIMAL(3,2) DEFAULT 0.001",
            "DECIMAL(3,2) DEFAULT 'NaN'",
            "DATE DEFAULT '2024-1-1'",
        ),
        *(
            "DECIMAL(3,2) DEFAULT '1e999999999'",
            "DATE DEFAULT NOW()",
            "INT DEFAULT SNOWFLAKE_ID()",
            "BIGINT DEFAULT UUID_V7()",
        ),
        *("TIMESTAMP DEFAULT 'soon'", "UUID DEFAULT 'x'", "JSON DEFAULT '{'", "BLOB DEFAULT '?'", "BLOB DEFAULT X'f'"),
        *(
            "UUID DEFAULT CURRENT_USER()",
            "INT DEFAULT 1 + 1",
            "INT DEFAULT (1)",
            "INT DEFAULT random()",
            "INT DEFAULT $1",
        ),
    ],
)
def test_a_default_that_does_not_fit_is_refused(definition: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        column(f"a {definition}")
    assert caught.value.fields["line"] == 1


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ("", SyntaxFault),
        ("a", SyntaxFault),
        ("a INT b INT", SyntaxFault),
        ("a INT,", SyntaxFault),
        ("a INT NOT NULL NOT NULL", SyntaxFault),
        ("a INT, A TEXT", InvalidName),
        ("_a INT", InvalidName),
        ('"A" INT', InvalidName),
        ("a INT UNIQUE", Unsupported),
        ("a INT REFERENCES b", Unsupported),
        ("CHECK (a > 1)", Unsupported),
        ("a INT, b INT, PRIMARY KEY ()", SyntaxFault),
        ("a INT, b INT, PRIMARY KEY (a, a)", InvalidValue),
        ("a INT, b INT, PRIMARY KEY (a, c)", ColumnNotFound),
        ("a INT, b DOUBLE, PRIMARY KEY (a, b)", Unsupported),
        ("a INT, b JSON, PRIMARY KEY (a, b)", Unsupported),
        ("a INT, b INT, PRIMARY KEY (a), PRIMARY KEY (b)", Unsupported),
        ("a INT PRIMARY KEY, b INT, PRIMARY KEY (a, b)", Unsupported),
        ("a INT PRIMARY KEY, b INT PRIMARY KEY", Unsupported),
        ("a BOOLEAN PRIMARY KEY", Unsupported),
        ("a JSON, PRIMARY KEY (a)", Unsupported),
        ("a INT, PRIMARY KEY (b)", ColumnNotFound),
        (", ".join(f"c{number} INT" for number in range(2_001)), Unsupported),
    ],
)
def test_a_wrong_column_list_is_refused(columns: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(f"CREATE SHARED TABLE t ({columns})")


def test_a_table_can_have_two_thousand_columns() -> None:
    assert len(created(f"CREATE STREAM TABLE t ({', '.join(f'c{n} INT' for n in range(2_000))})").columns) == 2_000


def test_a_stream_table_has_no_primary_key() -> None:
    with pytest.raises(Unsupported, match="_key"):
        parse_statement("CREATE STREAM TABLE t (a INT PRIMARY KEY)")


@pytest.mark.parametrize("name", ["system.t", "kalam.t", "information_schema.t", '"T"', "app._t", '"a.b"', 'A."b c"'])
def test_a_reserved_or_impossible_table_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_statement(f"CREATE TABLE {name} (a INT)")


def test_options_are_raw_values_by_their_names_in_capitals() -> None:
    table = created(
        "CREATE STREAM TABLE t (a INT) WITH (retention = '10s', MAX_BUFFER = 5, ephemeral = TRUE, storage = memory, "
        'subject_key = "a")'
    )
    assert table.options == {
        "RETENTION": "10s", "MAX_BUFFER": 5, "EPHEMERAL": True, "STORAGE": "memory", "SUBJECT_KEY": "a"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("clauses", "options"),
    [
        ("RETENTION 10s EPHEMERAL MAX_BUFFER 1000", {"RETENTION": "10s", "EPHEMERAL": True, "MAX_BUFFER": 1000}),
        ("TTL_SECONDS 60", {"TTL_SECONDS": 60}),
        ("FLUSH POLICY ROWS 1000", {"FLUSH_POLICY": "rows:1000"}),
        ("FLUSH POLICY TIME 300s", {"FLUSH_POLICY": "interval:300"}),
        ("flush policy rows 1000 or time 10m", {"FLUSH_POLICY": "rows:1000,interval:600"}),
        ("LOCATION '/data/it''s'", {"LOCATION": "/data/it's"}),
        ("DELETED_RETENTION 7d WITH (FORMAT = msgpack)", {"DELETED_RETENTION": "7d", "FORMAT": "msgpack"}),
        ("DELETED_RETENTION off", {"DELETED_RETENTION": "off"}),
    ],
)
def test_the_older_clauses_mean_the_same(clauses: str, options: dict[str, object]) -> None:
    assert created(f"CREATE TABLE t (a INT) {clauses}").options == options


@pytest.mark.parametrize(
    "clauses", ["RETENTION 10s RETENTION 5s", "MAX_BUFFER 1 WITH (max_buffer = 1)", "WITH (a=1, A=1)"]
)
def test_an_option_given_twice_is_refused(clauses: str) -> None:
    with pytest.raises(InvalidOption, match="twice"):
        parse_statement(f"CREATE TABLE t (a INT) {clauses}")


@pytest.mark.parametrize(
    "clauses", ["RETENTION", "WITH ()", "WITH (a)", "WITH (a = )", "FLUSH POLICY", "FLUSH ROWS 1", "x"]
)
def test_a_clause_that_is_not_whole_is_a_syntax_error(clauses: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_statement(f"CREATE TABLE t (a INT) {clauses}")


def test_tables_are_dropped() -> None:
    assert parse_statement("DROP TABLE t") == DropTable(TableRef(None, "t"), None, if_exists=False)
    assert parse_statement("DROP USER TABLE IF EXISTS a.t") == DropTable(
        TableRef("a", "t"), TableKind.USER, if_exists=True
    )


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("ADD COLUMN c TEXT", AddColumn("c", TEXT, nullable=True, default=None)),
        ("ADD c TEXT NOT NULL DEFAULT 'x'", AddColumn("c", TEXT, nullable=False, default=literal("x"))),
        (
            "ADD c TIMESTAMP DEFAULT NOW()",
            AddColumn("c", DataType(name=TypeName.TIMESTAMP), nullable=True, default=NOW),
        ),
        ("DROP COLUMN c", DropColumn("c")),
        ("DROP c", DropColumn("c")),
        ("DROP a, DROP COLUMN b", ChangeColumns((DropColumn("a"), DropColumn("b")))),
        (
            "ADD COLUMN c INT DEFAULT 1, DROP COLUMN a",
            ChangeColumns(
                (
                    AddColumn(
                        "c",
                        DataType(name=TypeName.INT),
                        nullable=True,
                        default=Default(kind=DefaultKind.LITERAL, literal=1),
                    ),
                    DropColumn("a"),
                )
            ),
        ),
        ("RENAME COLUMN a TO b", RenameColumn("a", "b")),
        ("RENAME a TO b", RenameColumn("a", "b")),
        ("RENAME TO b", RenameTable("b")),
        ("ALTER COLUMN a SET DEFAULT 'x, y'", SetDefault("a", "'x, y'")),
        ("ALTER a DROP DEFAULT", SetDefault("a", None)),
        ("ALTER COLUMN a DROP NOT NULL", DropNotNull("a")),
        ("ALTER COLUMN a TYPE VARCHAR(9)", SetType("a", DataType(name=TypeName.TEXT, length_max=9))),
        ("ALTER COLUMN a SET DATA TYPE BIGINT", SetType("a", DataType(name=TypeName.BIGINT))),
        ("SET (flush_policy = 'rows:5')", SetOptions({"FLUSH_POLICY": "rows:5"})),
    ],
)
def test_a_table_is_altered_by_an_action(action: str, value: object) -> None:
    assert parse_statement(f"ALTER TABLE a.t {action}") == AlterTable(TableRef("a", "t"), value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("ADD COLUMN c BIGINT DEFAULT SNOWFLAKE_ID()", InvalidValue),
        ("ADD COLUMN c UUID DEFAULT UUID_V7()", InvalidValue),
        ("ADD COLUMN c INT NOT NULL", InvalidValue),
        ("ADD COLUMN c INT PRIMARY KEY", Unsupported),
        ("ADD COLUMN _c INT", InvalidName),
        ("ADD a INT, ADD a TEXT", InvalidName),
        ("ADD a INT, DROP COLUMN a", InvalidName),
        ("ADD a INT, RENAME b TO c", Unsupported),
        ("RENAME b TO c, ADD a INT", Unsupported),
        ("ADD a INT,", Unsupported),
        ("DROP COLUMN _row_id", InvalidName),
        ("RENAME COLUMN _updated TO b", InvalidName),
        ("RENAME COLUMN a TO _b", InvalidName),
        ("RENAME TO a.b", Unsupported),
        ("RENAME TO _b", InvalidName),
        ("ALTER COLUMN a SET NOT NULL", Unsupported),
        ("ALTER COLUMN a TYPE TEXT USING a", Unsupported),
        ("ALTER COLUMN a SET DEFAULT", SyntaxFault),
        ("ALTER COLUMN _row_id DROP NOT NULL", InvalidName),
        ("ALTER COLUMN a DROP DEFAULT, ALTER COLUMN b DROP DEFAULT", Unsupported),
        ("FORCE ROW LEVEL SECURITY", Unsupported),
        ("ENABLE ROW LEVEL", SyntaxFault),
        ("SET", SyntaxFault),
        ("RENAME COLUMN a", SyntaxFault),
    ],
)
def test_another_alteration_is_refused(action: str, error: type[KalamError]) -> None:
    with pytest.raises(error):
        parse_statement(f"ALTER TABLE t {action}")
