"""``kalam insert`` of files as they are in the world: dialects, encodings, packed files, folders, nested columns."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

WORDS = "yes", "no", "t", "F", "1", "0", "TRUE", ""
TRUTHS = [True, False, True, False, True, False, True, None]


@pytest.fixture
def table(create_table) -> str:
    return create_table("id TEXT PRIMARY KEY, size TEXT, ok BOOLEAN", kind="SHARED")


def rows(kalam_server, table, names="id, size, ok"):
    return kalam_server.sql(f"SELECT {names} FROM {table} ORDER BY id")


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("id;size;ok\n007;größer;true\n", ("--encoding", "cp1252")),
        ("id;size;ok\n007;größer;true\n", ("--encoding", "utf-16")),
        ("id;size;ok\n007;größer;true\n", ("--encoding", "UTF16")),
        ("sep=;\nid;size;ok\n007;größer;true\n", ("--encoding", "latin-1")),
        ("id\tsize\tok\n007\tgrößer\ttrue\n", ("--encoding", "utf-8")),
        ("id|size|ok\n007|größer|true\n", ("--delimiter", "|")),
        ("id,size,ok\n007,'größer',true\n", ("--quote", "'")),
        ('id,size,ok\n007,größer,"true"\n', ()),
    ],
)
@pytest.mark.parametrize("has_mark", [False, True])
def test_a_dialect_and_an_encoding_are_read(at_server, kalam_server, table, tmp_path, content, arguments, has_mark):
    file = tmp_path / "excel.csv"
    encoding = arguments[1] if "--encoding" in arguments else "utf-8"
    is_utf_16 = "16" in encoding
    body = content.encode("utf-16-le" if is_utf_16 else encoding)  # the first of which makes no mark
    mark = b"\xff\xfe" if is_utf_16 else b"\xef\xbb\xbf"
    file.write_bytes(mark + body if has_mark else body)
    done = at_server("insert", table, str(file), *arguments)
    assert done.returncode == 0, done.stderr
    assert rows(kalam_server, table) == [["007", "größer", True]]


def test_the_file_of_skipped_rows_is_none_of_those_that_are_read(at_server, table, tmp_path):
    file = tmp_path / "rows.ndjson"
    file.write_text('{"id": "a"}\n')
    for given in (file, tmp_path):
        done = at_server("insert", table, str(given), "--skip-bad", str(file))
        assert (done.returncode, done.stderr) == (
            1,
            f"error: --skip-bad {file} is one of the files that are to be read\n",
        )
    assert file.read_text() == '{"id": "a"}\n'


def test_an_insert_whose_skipped_rows_cannot_be_written_fails_and_says_what_is_stored(at_server, table):
    lines = '{"id": "a"}\n{"id": 1}\n{"id": "b"}\n'
    done = at_server("insert", table, "--skip-bad", "/dev/full", stdin=lines)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write /dev/full: No space left on device\n")
    assert "2 rows are known to be stored" in done.stderr


def test_utf_16_is_known_by_its_mark_and_tabs_by_the_name(at_server, kalam_server, table, tmp_path):
    file = tmp_path / "rows.tsv"
    file.write_bytes("id\tsize\n007\ta,b\n".encode("utf-16"))
    assert at_server("insert", table, str(file)).returncode == 0
    assert rows(kalam_server, table, "id, size") == [["007", "a,b"]]


def test_an_encoding_that_wants_a_mark_is_told_so(at_server, table, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes("id,size\n007,a\n".encode("utf-32-le"))
    done = at_server("insert", table, str(file), "--encoding", "utf-32")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "the file is not utf-32, at byte 0: say another --encoding" in done.stderr


def test_another_encoding_is_told_with_what_to_say(at_server, table, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes("id,size\n1,ok\n2,größer\n".encode("cp1252"))
    done = at_server("insert", table, str(file))
    assert done.returncode == 1
    assert f"{file}: row" in done.stderr
    assert "is not UTF-8" in done.stderr
    assert "--encoding" in done.stderr
    file.write_bytes(b"id,size\n1,\xff\xff")
    done = at_server("insert", table, str(file), "--encoding", "ascii")
    assert done.returncode == 1


def test_words_for_null_are_no_texts(at_server, kalam_server, table):
    text = 'id,size\n1,NULL\n2,n/a\n3,"NULL"\n4,\n5,""\n'
    arguments = ("--format", "csv", "--null", "NULL", "--null", "n/a")
    assert at_server("insert", table, *arguments, stdin=text).returncode == 0
    assert rows(kalam_server, table, "size") == [[None], [None], ["NULL"], [None], [""]]


def test_a_quote_may_stand_for_itself(at_server, kalam_server, table):
    text = 'id,size\n1,5" disk\n2,"\n'
    assert at_server("insert", table, "--format", "csv", "--quote", "", stdin=text).returncode == 0
    assert rows(kalam_server, table, "size") == [['5" disk'], ['"']]


def test_a_file_without_a_header_has_its_columns_named(at_server, kalam_server, table):
    arguments = ("--format", "csv", "--no-header", "--columns", "id,size")
    assert at_server("insert", table, *arguments, stdin="007,a\n008,b\n").returncode == 0
    assert rows(kalam_server, table, "id, size") == [["007", "a"], ["008", "b"]]


@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "parquet", "numbers"])
def test_truth_values_may_be_said_otherwise(at_server, kalam_server, table, tmp_path, form):
    file, wanted = tmp_path / f"rows.{form}", TRUTHS
    content = [{"id": str(place), "ok": word or None} for place, word in enumerate(WORDS)]
    match form:
        case "csv":
            file.write_text("id,ok\n" + "".join(f"{row['id']},{row['ok'] or ''}\n" for row in content))
        case "ndjson":
            file.write_text("\n".join(map(json.dumps, content)))
        case "json":
            file.write_text(json.dumps(content))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(content), file)
        case _:
            file, wanted = tmp_path / "rows.arrow", [True, False, None]
            pyarrow.feather.write_feather(pa.table({"id": ["0", "1", "2"], "ok": [1, 0, None]}), file)
    if form not in ("csv", "parquet"):
        assert at_server("insert", table, str(file)).returncode == 1
    done = at_server("insert", table, str(file), "--booleans")
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(kalam_server, table, "ok")] == wanted


def test_a_word_that_is_no_truth_value_is_named(at_server, table):
    done = at_server("insert", table, "--format", "csv", "--booleans", stdin="id,ok\n1,yes\n2,perhaps\n")
    assert done.returncode == 1
    assert done.stderr.startswith("error [invalid_value]: column ok expects BOOLEAN, found 'perhaps'\n  at row 2\n")


def pack(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        half = len(content) // 2
        return gzip.compress(content[:half]) + gzip.compress(content[half:])
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def content_of(form: str, count: int) -> bytes:
    found = pa.table({"id": [f"{number:05}" for number in range(count)], "size": ["x" * 20] * count})
    match form:
        case "csv":
            return ("id,size\n" + "".join(f"{row['id']},{row['size']}\n" for row in found.to_pylist())).encode()
        case "ndjson":
            return "\n".join(map(json.dumps, found.to_pylist())).encode()
        case "json":
            return json.dumps(found.to_pylist()).encode()
        case "parquet":
            file = io.BytesIO()
            pq.write_table(found, file)
            return file.getvalue()
        case "arrow":
            file = io.BytesIO()
            pyarrow.feather.write_feather(found, file)
            return file.getvalue()
        case _:
            file = io.BytesIO()
            with pa.ipc.new_stream(file, found.schema) as writer:
                writer.write_table(found)
            return file.getvalue()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("form", ["csv", "ndjson", "json", "parquet", "arrow", "arrows"])
def test_packed_files_are_unpacked(at_server, kalam_server, table, tmp_path, form, suffix):
    packed = pack(content_of(form, 12_000), suffix)
    file = tmp_path / f"rows.{form}{suffix}"
    file.write_bytes(packed)
    done = at_server("insert", table, str(file))
    assert done.returncode == 0, done.stderr
    assert kalam_server.sql(f"SELECT count(*), count(DISTINCT id) FROM {table}") == [[12_000, 12_000]]
    kalam_server.sql(f"DELETE FROM {table}")
    assert at_server("insert", table, stdin=packed).returncode == 0
    assert kalam_server.sql(f"SELECT count(*) FROM {table}") == [[12_000]]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_off_is_told(at_server, table, tmp_path, suffix):
    file = tmp_path / f"rows.ndjson{suffix}"
    packed = pack("".join(f'{{"id": "{random.random()}"}}\n' for _ in range(3_000)).encode(), suffix)
    file.write_bytes(packed[: len(packed) - 2_000])
    done = at_server("insert", table, str(file))
    assert done.returncode == 1
    assert str(file) in done.stderr.splitlines()[0]
    assert "it is packed and damaged" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


def test_a_folder_and_a_pattern_are_their_files(at_server, kalam_server, table, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "a.csv").write_text("id,size\n1,a\n2,a\n")
    (folder / "b.ndjson.gz").write_bytes(gzip.compress(b'{"id": "3", "size": "b"}'))
    pq.write_table(pa.table({"id": ["4"]}), folder / "c.parquet")
    (folder / "README.md").write_text("no rows")
    (folder / ".hidden.csv").write_text("id\n9\n")
    done = at_server("insert", table, str(folder))
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stderr
    assert "README.md" in done.stderr
    assert rows(kalam_server, table, "id, size") == [["1", "a"], ["2", "a"], ["3", "b"], ["4", None]]
    kalam_server.sql(f"DELETE FROM {table}")
    assert at_server("insert", table, str(folder / "*.csv"), str(folder / "c.parquet")).returncode == 0
    assert [row[0] for row in rows(kalam_server, table, "id")] == ["1", "2", "4"]


@pytest.mark.parametrize("name", ["*.csv", "nothing", "no-such-file"])
def test_a_name_without_files_is_told(kalam, tmp_path, name):
    (tmp_path / "nothing").mkdir()
    done = kalam("insert", "a.b", str(tmp_path / name))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot read {tmp_path / name}: ")


def test_an_error_names_file_row_and_column_and_shows_the_value(at_server, create_table, tmp_path):
    table = create_table("id BIGINT PRIMARY KEY, n INT", kind="SHARED")
    (tmp_path / "a.csv").write_text("id,n\n" + "".join(f"{number},1\n" for number in range(6_000)))
    (tmp_path / "b.csv").write_text("id,n\n6000,1\n6001,12x\n")
    done = at_server("insert", table, str(tmp_path / "*.csv"))
    assert done.returncode == 1
    place = f"error [invalid_value]: column n expects INT, found '12x'\n  at {tmp_path}/b.csv, row 2\n"
    assert done.stderr.startswith(place)
    assert f"  {tmp_path}/a.csv: rows 1-6,000: stored\n  {tmp_path}/b.csv: rows 1-2: refused, not stored" in done.stderr


@pytest.mark.parametrize("form", ["ndjson", "json", "parquet", "arrow"])
def test_every_format_shows_the_value_and_its_place(at_server, create_table, tmp_path, form):
    table = create_table("id BIGINT, n INT", kind="SHARED")
    content = [{"id": number, "n": 5_000_000_000 if number == 4_321 else 1} for number in range(5_000)]
    file = tmp_path / f"rows.{form}"
    match form:
        case "ndjson":
            file.write_text("\n\n".join(map(json.dumps, content)))
        case "json":
            file.write_text(json.dumps(content))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(content), file)
        case _:
            pyarrow.feather.write_feather(pa.Table.from_pylist(content), file)
    done = at_server("insert", table, str(file))
    place = "line 8,643" if form == "ndjson" else "row 4,322"
    assert done.stderr.startswith("error [invalid_value]: column n expects INT")
    assert f"found 5000000000\n  at {file}, {place}\n" in done.stderr


def test_a_line_of_other_length_is_named_with_its_text(at_server, table, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("id,size\n1,a\n2,b,c\n")
    done = at_server("insert", table, str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {file}: row 2 has 3 fields and not 2: 2,b,c\n")


def test_lists_and_structs_become_json(at_server, kalam_server, create_table, tmp_path):
    table = create_table("id BIGINT PRIMARY KEY, l JSON, s JSON, m JSON, t TEXT, txt TEXT", kind="SHARED")
    at = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    found = pa.table(
        {
            "id": range(6_000),
            "l": pa.array([[1, None, number] if number else None for number in range(6_000)]),
            "s": pa.array([{"a": {"b": [at]}, "c": None}] * 6_000),
            "m": pa.array([[("k", 1.5)]] * 6_000, pa.map_(pa.string(), pa.float64())),
            "t": pa.array([datetime.time(1, 2, 3)] * 6_000),
            "txt": pa.array([["x"]] * 6_000),
        }
    )
    pq.write_table(found, tmp_path / "rows.parquet")
    pyarrow.feather.write_feather(found, tmp_path / "rows.arrow")
    for name in ("rows.parquet", "rows.arrow"):
        kalam_server.sql(f"DELETE FROM {table}")
        done = at_server("insert", table, str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert kalam_server.sql(f"SELECT count(*), count(l) FROM {table}") == [[6_000, 5_999]]
        shown = [7, [1, None, 7], {"a": {"b": ["2024-01-02T03:04:05Z"]}, "c": None}, {"k": 1.5}, "01:02:03", '["x"]']
        assert kalam_server.sql(f"SELECT id, l, s, m, t, txt FROM {table} WHERE id = 7") == [shown]


@pytest.mark.parametrize("form", ["parquet", "csv", "ndjson"])
def test_long_rows_go_through_an_ordinary_broker(kalam, nats_server, start_kalam, tmp_path, form):
    """A NATS as it comes takes messages of 1 MiB: 5,000 rows of 500 bytes are more, ten of 100 kB as well."""
    server = start_kalam(flags=("--nats-url", nats_server.url))
    server.sql("CREATE NAMESPACE w; CREATE TABLE w.t (id BIGINT PRIMARY KEY, text TEXT)")
    chance = random.Random(7)
    sizes = [500] * 6_000 + [chance.randrange(500, 100_000) for _ in range(300)]
    found = pa.table({"id": range(len(sizes)), "text": ["x" * size for size in sizes]})
    file = tmp_path / f"rows.{form}"
    match form:
        case "parquet":
            pq.write_table(found, file)
        case "csv":
            file.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in found.to_pylist()))
        case _:
            file.write_text("".join(json.dumps(row) + "\n" for row in found.to_pylist()))
    done = kalam("insert", "w.t", str(file), "--nats-url", nats_server.url)
    assert done.returncode == 0, done.stderr
    total = sum(sizes)
    assert server.sql("SELECT count(*), sum(length(text)) FROM w.t") == [[len(sizes), total]]
    long = tmp_path / "long.ndjson"
    long.write_text(json.dumps({"id": -1, "text": "a"}) + "\n" + json.dumps({"id": -2, "text": "x" * 1_200_000}) + "\n")
    done = kalam("insert", "w.t", str(long), "--nats-url", nats_server.url)
    assert done.returncode == 1
    assert f"error: {long}: line 2 has 1,200,0" in done.stderr


def test_stdin_has_two_names_and_what_is_no_file_is_said_to_be_none(at_server, kalam_server, start):
    kalam_server.sql("CREATE NAMESPACE IF NOT EXISTS named; CREATE TABLE named.stdin (id BIGINT PRIMARY KEY)")
    assert at_server("insert", "named.stdin", "/dev/stdin", stdin='{"id": 1}\n').returncode == 0
    assert kalam_server.sql("SELECT id FROM named.stdin") == [[1]]
    refused = at_server("insert", "named.stdin", "/dev/null")
    assert (refused.returncode, "is no file" in refused.stderr) == (1, True)
