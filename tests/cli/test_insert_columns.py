"""``kalam insert``: what a file's names mean, tables made for a file, rows that are there and rows that are bad."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_process import environment


def as_ndjson(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def table(create_table) -> str:
    return create_table("id BIGINT PRIMARY KEY, name TEXT, ok BOOLEAN", kind="SHARED")


def rows(kalam_server, table, names="id, name, ok"):
    return kalam_server.sql(f"SELECT {names} FROM {table} ORDER BY id")


def described(kalam_server, table) -> dict[str, str]:
    found = kalam_server.sql(f"DESCRIBE TABLE {table}")
    return {name: text for section, name, text, _ in found if section == "column" and not name.startswith("_")}


@pytest.fixture
def new_table() -> str:
    new_table.number = getattr(new_table, "number", 0) + 1
    return f"made.t{new_table.number}"


FORMS = {
    "rows.csv": "ID,Name\n1,a\n2,b\n",
    "rows.ndjson": '{"ID": 1, "Name": "a"}\n{"ID": 2, "Name": "b"}\n',
    "rows.json": '[{"ID": 1, "Name": "a"}, {"ID": 2, "Name": "b"}]',
}


@pytest.mark.parametrize("name", [*FORMS, "rows.parquet"])
def test_names_that_differ_in_case_are_matched_and_said(at_server, kalam_server, table, tmp_path, name):
    file = tmp_path / name
    if name in FORMS:
        file.write_text(FORMS[name])
    else:
        pq.write_table(pa.table({"ID": [1, 2], "Name": ["a", "b"]}), file)
    done = at_server("insert", table, str(file))
    assert done.returncode == 0, done.stderr
    assert "columns of other names in the file: ID is id, Name is name\n" in done.stderr
    assert rows(kalam_server, table, "id, name") == [[1, "a"], [2, "b"]]


def test_a_name_that_means_no_column_is_told_with_what_to_do(at_server, table):
    done = at_server("insert", table, "--format", "csv", stdin="id,title\n1,a\n")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error [column_not_found]: table {table} has no column 'title'; it has id, name, ok")
    assert "--map NAME=COLUMN" in done.stderr


@pytest.mark.parametrize("name", ["rows.csv", "rows.ndjson", "rows.parquet"])
def test_columns_are_mapped_and_chosen(at_server, kalam_server, create_table, tmp_path, name):
    table = create_table("id BIGINT PRIMARY KEY, name TEXT", kind="SHARED")
    content = [{"key": 1, "Title": "a", "junk": "x"}, {"key": 2, "Title": "b", "junk": "y"}]
    file = tmp_path / name
    if name == "rows.csv":
        file.write_text("key,Title,junk\n1,a,x\n2,b,y\n")
    elif name == "rows.ndjson":
        file.write_text(as_ndjson(content))
    else:
        pq.write_table(pa.Table.from_pylist(content), file)
    maps = ("--map", "key=id", "--map", "title=name")
    done = at_server("insert", table, str(file), *maps, "--columns", "id,Title")
    assert done.returncode == 0, done.stderr
    assert rows(kalam_server, table, "id, name") == [[1, "a"], [2, "b"]]


@pytest.mark.parametrize("option", [("--map", "nope=id"), ("--columns", "id,nope")])
@pytest.mark.parametrize("name", ["rows.csv", "rows.ndjson"])
def test_a_name_that_the_file_does_not_have_is_an_error(at_server, table, tmp_path, option, name):
    file = tmp_path / name
    file.write_text(FORMS[name])
    done = at_server("insert", table, str(file), *option)
    assert done.returncode == 1
    assert f"{option[0]}: the file has no column 'nope'; it has ID, Name" in done.stderr


def test_two_names_for_one_column_are_an_error(at_server, table):
    done = at_server("insert", table, "--format", "csv", stdin="id,ID\n1,2\n")
    assert done.returncode == 1
    assert "several columns for id: id, ID" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--map", "a"),
        ("--map", "=a"),
        ("--no-header",),
        ("--key", "id"),
        ("--delimiter", "ab"),
        ("--encoding", "martian"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(kalam, arguments):
    done = kalam("insert", "a.b", *arguments, stdin="")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


CSV = (
    "no,price,big,day,at,ok,flag,code,mixed,empty,long,id\n"
    "7,1.5,9223372036854775807,2024-02-29,2024-02-29 10:00:00,true,yes,007,1,,12345678901234567890.5,"
    "018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f70\n"
    "-8,2,-1,2024-03-01,2024-02-29T10:00:00.5Z,false,no,008,x,,1,018f2b6e-7c1a-7e3d-9b1f-6a2c4d5e6f71\n"
)
GUESSED = {
    "no": "BIGINT",
    "price": "DOUBLE",
    "big": "BIGINT",
    "day": "DATE",
    "at": "TIMESTAMP",
    "ok": "BOOLEAN",
    "flag": "TEXT",
    "code": "TEXT",
    "mixed": "TEXT",
    "empty": "TEXT",
    "long": "TEXT",
    "id": "UUID",
}


def test_a_table_is_made_for_the_file(at_server, kalam_server, new_table):
    done = at_server("insert", new_table, "--create", "--yes", "--format", "csv", stdin=CSV)
    assert done.returncode == 0, done.stderr
    assert described(kalam_server, new_table) == GUESSED
    assert f"CREATE TABLE {new_table} (" in done.stderr
    found = kalam_server.sql(f"SELECT no, code, at, ok FROM {new_table} ORDER BY no DESC")
    assert found == [[7, "007", "2024-02-29T10:00:00.000000Z", True], [-8, "008", "2024-02-29T10:00:00.500000Z", False]]


def test_yes_and_no_are_truth_values_where_that_is_said(at_server, kalam_server, new_table):
    done = at_server(
        "insert", new_table, "--create", "--yes", "--booleans", "--key", "ID", "--format", "csv", stdin=CSV
    )
    assert done.returncode == 0, done.stderr
    assert described(kalam_server, new_table) == GUESSED | {"flag": "BOOLEAN", "id": "UUID NOT NULL PRIMARY KEY"}


def test_a_table_can_be_made_with_a_key_of_several_columns(at_server, kalam_server, new_table):
    making = ("insert", new_table, "--create", "--yes", "--format", "csv")
    done = at_server(*making, "--key", "Sensor, DAY", stdin="v,day,Sensor\n1,2026-03-01,a\n2,2026-03-02,a\n")
    assert done.returncode == 0, done.stderr
    assert 'PRIMARY KEY ("sensor", "day"))' in done.stderr
    assert described(kalam_server, new_table)["day"] == "DATE NOT NULL PRIMARY KEY (sensor, day)"
    again = "day,sensor,v\n2026-03-02,a,5\n2026-03-02,b,6\n"
    done = at_server("insert", new_table, "--on-conflict", "update", "--format", "csv", stdin=again)
    assert done.returncode == 0, done.stderr
    assert kalam_server.sql(f"SELECT sensor, day, v FROM {new_table} ORDER BY 1, 2") == [
        ["a", "2026-03-01", 1],
        ["a", "2026-03-02", 5],
        ["b", "2026-03-02", 6],
    ]
    done = at_server("insert", f"{new_table}x", "--create", "--yes", "--key", "v,w", "--format", "csv", stdin="v\n1\n")
    assert done.returncode == 1
    assert "the file has no column 'w'" in done.stderr


def test_without_a_terminal_and_yes_nothing_is_created(at_server, kalam_server, new_table, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(CSV)
    for arguments, stdin in (((str(file),), ""), (("--format", "csv"), CSV)):
        done = at_server("insert", new_table, "--create", *arguments, stdin=stdin)
        assert done.returncode == 1
        assert "CREATE TABLE" in done.stderr
        assert "--yes" in done.stderr
    assert count_made(kalam_server, new_table) == 0


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_at_a_terminal_it_asks(kalam_server, new_table, tmp_path, answer, status):
    file = tmp_path / "rows.csv"
    file.write_text("id,name\n1,a\n")
    command = [sys.executable, "-m", "kalam", "insert", new_table, str(file), "--create"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, "--nats-url", kalam_server.nats_url], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    shown = read_until(ours, b"[y/N]")
    assert b"CREATE TABLE" in shown
    os.write(ours, answer.encode())
    shown += read_until(ours, None)
    assert process.wait(60) == status, shown
    os.close(ours)
    assert count_made(kalam_server, new_table) == (1 if status == 0 else 0)


def count_made(kalam_server, table) -> int:
    named = "namespace = 'made' AND table_name = $1"
    return kalam_server.sql(f"SELECT count(*) FROM system.tables WHERE {named}", table.partition(".")[2])[0][0]


def read_until(terminal: int, wanted: bytes | None) -> bytes:
    shown = b""
    while wanted is None or wanted not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        try:
            piece = os.read(terminal, 4_096)
        except OSError as exc:
            if exc.errno != errno.EIO:  # how Linux says that the other side has gone
                raise
            return shown
        if not piece:
            return shown
        shown += piece
    return shown


def test_columns_without_a_plain_name_are_found_again(at_server, kalam_server, new_table):
    text = "id,,A b,a-b\n{},x,1,2\n"
    asked = ("insert", new_table, "--format", "csv")
    done = at_server(*asked, "--create", "--yes", stdin=text.format(1))
    assert done.returncode == 0, done.stderr
    assert list(described(kalam_server, new_table)) == ["id", "column_2", "a_b", "a_b_2"]
    for number, flags in enumerate(((), ("--create", "--yes"), ("--map", "A b=a_b")), 2):
        done = at_server(*asked, *flags, stdin=text.format(number))
        assert done.returncode == 0, done.stderr
        assert "(no name) is column_2" in done.stderr or flags
    found = kalam_server.sql(f"SELECT id, column_2, a_b, a_b_2 FROM {new_table} ORDER BY id")
    assert found == [[number, "x", 1, 2] for number in range(1, 5)]


def test_a_thousand_rows_are_looked_at(at_server, kalam_server, new_table):
    for number, late in enumerate((999, 1_000)):
        table = f"{new_table}_{number}"
        lines = [{"n": "x" if row == late else row} for row in range(1_500)]
        done = at_server("insert", table, "--create", "--yes", stdin=as_ndjson(lines))
        assert described(kalam_server, table) == {"n": "JSON" if late == 999 else "BIGINT"}
        assert done.returncode == (0 if late == 999 else 1)


def test_json_and_columns_are_guessed_by_their_types(at_server, kalam_server, new_table, tmp_path):
    row = {"Big Id": 1, "d": 0.5, "ok": True, "doc": {"a": [1]}, "t": "5", "day": "2024-01-01", "x": None, "n": 1 << 70}
    done = at_server("insert", new_table, "--create", "--yes", stdin=as_ndjson([row]))
    assert done.returncode == 0, done.stderr
    types = {"big_id": "BIGINT", "d": "DOUBLE", "ok": "BOOLEAN", "doc": "JSON", "t": "TEXT", "day": "DATE", "x": "TEXT"}
    assert described(kalam_server, new_table) == types | {"n": "DECIMAL(38,0)"}
    file = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table(
            {
                "i": pa.array([1], pa.int32()),
                "u": pa.array([1], pa.uint64()),
                "f": pa.array([1], pa.float32()),
                "p": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
                "c": pa.array(["x"]).dictionary_encode(),
                "l": pa.array([[1, 2]]),
                "at": pa.array([0], pa.timestamp("ns")),
                "b": pa.array([b"x"]),
            }
        ),
        file,
    )
    done = at_server("insert", f"{new_table}_p", str(file), "--create", "--yes")
    assert done.returncode == 0, done.stderr
    assert described(kalam_server, f"{new_table}_p") == {
        "i": "INT",
        "u": "DECIMAL(20,0)",
        "f": "FLOAT",
        "p": "DECIMAL(10,2)",
        "c": "TEXT",
        "l": "JSON",
        "at": "TIMESTAMP",
        "b": "BLOB",
    }


def test_a_table_that_is_there_is_not_made_again(at_server, kalam_server, table):
    done = at_server("insert", table, "--create", stdin='{"id": 1}')
    assert done.returncode == 0, done.stderr
    assert f"{table} is there already" in done.stderr
    assert rows(kalam_server, table) == [[1, None, None]]


def test_a_missing_table_is_told_with_what_makes_one(at_server):
    done = at_server("insert", "cli.nowhere", stdin='{"id": 1}')
    assert "`kalam insert --create` makes a table" in done.stderr


def test_rows_that_are_there_are_left_or_updated(at_server, kalam_server, table, tmp_path):
    kalam_server.sql(f"INSERT INTO {table} VALUES (1, 'a', true), (2, 'b', false)")
    file = tmp_path / "rows.csv"
    file.write_text("id,name\n2,B\n3,c\n2,BB\n")
    done = at_server("insert", table, str(file))
    assert done.returncode == 1
    assert done.stderr.startswith("error [duplicate_key]: ")
    done = at_server("insert", table, str(file), "--on-conflict", "nothing")
    assert (done.returncode, "1 row is stored" in done.stderr) == (0, True), done.stderr
    assert "2 rows were there already and stayed as they are" in done.stderr
    assert rows(kalam_server, table) == [[1, "a", True], [2, "b", False], [3, "c", None]]
    done = at_server("insert", table, str(file), "--on-conflict", "update")
    assert (done.returncode, "2 rows are stored" in done.stderr) == (0, True), done.stderr
    assert "2 rows were there already and got the columns of the file" in done.stderr
    assert rows(kalam_server, table) == [[1, "a", True], [2, "BB", False], [3, "c", None]]


def skipped(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_bad_rows_are_skipped_and_listed(at_server, kalam_server, table, tmp_path):
    file, bad = tmp_path / "rows.csv", tmp_path / "bad.ndjson"
    lines = [f"{number},n{number}" for number in range(1, 1_001)]
    lines[9], lines[19], lines[499], lines[999] = "x,y", "20", "5,again", "1001,n,o"
    file.write_text("\n".join(["id,name", *lines]))
    done = at_server("insert", table, str(file), "--skip-bad", str(bad))
    assert done.returncode == 0, done.stderr
    assert "996 rows are stored" in done.stderr
    assert f"4 rows were skipped: {bad} has them and says why" in done.stderr
    found = sorted(skipped(bad), key=lambda entry: entry["row"])
    assert [(entry["file"], entry["row"], entry["code"]) for entry in found] == [
        (str(file), 10, "invalid_value"),
        (str(file), 20, "invalid_value"),
        (str(file), 500, "duplicate_key"),
        (str(file), 1_000, "invalid_value"),
    ]
    assert found[0]["detail"] == "column id expects BIGINT, found 'x'"
    assert found[0]["data"] == {"id": "x", "name": "y"}
    assert found[3]["data"] == "1001,n,o"
    assert kalam_server.sql(f"SELECT count(*) FROM {table}") == [[996]]


def test_every_bad_row_is_listed_however_many_there_are(at_server, kalam_server, table, tmp_path):
    bad = tmp_path / "bad.ndjson"
    lines = ['{"id": "x"}', "\n", "no json", '{"id": 1}'] * 1_000
    lines = "\n".join(line.replace("1}", f"{place}}}") for place, line in enumerate(lines))
    done = at_server("insert", table, "--skip-bad", str(bad), stdin=lines)
    assert done.returncode == 0, done.stderr
    found = skipped(bad)
    assert len(found) == 2_000
    numbers = sorted(entry["line"] for entry in found)
    assert numbers == sorted([*range(1, 5_000, 5), *range(4, 5_001, 5)])
    assert kalam_server.sql(f"SELECT count(*) FROM {table}") == [[1_000]]


def test_nothing_is_listed_where_nothing_is_bad(at_server, table, tmp_path):
    bad = tmp_path / "bad.ndjson"
    done = at_server("insert", table, "--skip-bad", str(bad), stdin='{"id": 1}')
    assert (done.returncode, bad.read_text()) == (0, "")
    assert "skipped" not in done.stderr


def test_numbers_in_another_form_fit_where_that_is_said(at_server, kalam_server, table):
    text = "id\n5.0\n6\n"
    assert at_server("insert", table, "--format", "csv", stdin=text).returncode == 1
    done = at_server("insert", table, "--format", "csv", "--lossless", stdin=text)
    assert done.returncode == 0, done.stderr
    assert rows(kalam_server, table, "id") == [[5], [6]]
