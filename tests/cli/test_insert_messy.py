"""A morning with the files that people send: every one goes in, every row is counted, and what is wrong is listed."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CUSTOMERS = """\
Kunden-Nr;Name;Straße;Aktiv;Rabatt;Letzter Besuch
007;Müller & Söhne;Große Gasse 1;yes;NULL;2024-02-29 08:00:00
008;"Jäger; Ltd.";;no;2.5;NULL
010;"Anführung ""so""\";Weg 3;yes;0;2024-03-01 09:30:00
""".replace("\n", "\r\n")
EVENTS = 30_000
LONG_ROWS = 1_500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What was sent: a list from Excel, a packed log, an export of an analysis, long texts."""
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "kunden.csv").write_bytes(b"\xef\xbb\xbf" + CUSTOMERS.encode("cp1252"))
    with gzip.open(folder / "events.ndjson.gz", "wt") as file:
        for number in range(EVENTS):
            event = {"eventId": number, "at": f"2024-01-01T00:00:{number % 60:02}", "tags": ["a", {"n": number}]}
            file.write(json.dumps(event) + ("\n\n" if number % 1_000 == 0 else "\n"))
    with gzip.open(folder / "late.ndjson.gz", "wt") as file:
        file.write('{"eventId": 29999, "at": null}\n{"eventId": 30000}\n{"eventId": "x"}\n{"eventId"\n{"at": "noon"}\n')
    analysis = [{"id": n, "scores": [n / 2, None], "by": {"name": "ä" * (n % 5), "ok": None}} for n in range(7_000)]
    pq.write_table(pa.Table.from_pylist(analysis), folder / "analysis.parquet", row_group_size=1_000)
    chance = random.Random(3)
    texts = ["x" * chance.choice((500, 5_000, chance.randrange(500, 100_000))) for _ in range(LONG_ROWS)]
    pq.write_table(pa.table({"id": range(LONG_ROWS), "text": texts}), folder / "texts.parquet")
    return folder


def test_every_file_goes_in_and_every_row_is_counted(at_server, kalam_server, folder, tmp_path):
    customers = ("--encoding", "cp1252", "--null", "NULL", "--booleans", "--create", "--yes", "--key", "Kunden-Nr")
    for again in (False, True):  # the same file once more changes nothing
        more = ("--on-conflict", "update") if again else ()
        done = at_server("insert", "messy.customers", str(folder / "kunden.csv"), *customers, *more)
        assert done.returncode == 0, done.stderr
        assert kalam_server.sql(
            "SELECT kunden_nr, name, strasse, aktiv, rabatt, letzter_besuch FROM messy.customers"
        ) == [
            ["007", "Müller & Söhne", "Große Gasse 1", True, None, "2024-02-29T08:00:00.000000Z"],
            ["008", "Jäger; Ltd.", None, False, 2.5, None],
            ["010", 'Anführung "so"', "Weg 3", True, 0.0, "2024-03-01T09:30:00.000000Z"],
        ]

    done = at_server("insert", "messy.events", str(folder / "events.*.gz"), "--create", "--yes", "--key", "eventid")
    assert done.returncode == 0, done.stderr
    bad = tmp_path / "bad.ndjson"
    done = at_server(
        *("insert", "messy.events", str(folder / "late.ndjson.gz"), "--map", "eventId=eventid", "--skip-bad", str(bad))
    )
    assert done.returncode == 0, done.stderr
    assert "1 row is stored" in done.stderr
    found = sorted(map(json.loads, bad.read_text().splitlines()), key=lambda entry: entry["line"])
    codes = ["duplicate_key", "invalid_value", "invalid_value", "invalid_value"]
    assert [(entry["line"], entry["code"]) for entry in found] == list(zip((1, 3, 4, 5), codes, strict=True))
    counted = "SELECT count(*), sum(eventid), count(DISTINCT at), count(tags) FROM messy.events"
    assert kalam_server.sql(counted) == [[EVENTS + 1, EVENTS * (EVENTS + 1) // 2, 60, EVENTS]]

    done = at_server("insert", "messy.analysis", str(folder / "analysis.parquet"), "--create", "--yes")
    assert done.returncode == 0, done.stderr
    assert kalam_server.sql("SELECT count(*), sum(id) FROM messy.analysis") == [[7_000, 7_000 * 6_999 // 2]]
    shown = [[3, [1.5, None], {"name": "äää", "ok": None}]]
    assert kalam_server.sql('SELECT id, scores, "by" FROM messy.analysis WHERE id = 3') == shown

    done = at_server("insert", "messy.texts", str(folder / "texts.parquet"), "--create", "--yes")
    assert done.returncode == 0, done.stderr
    lengths = pq.read_table(folder / "texts.parquet")["text"].to_pylist()
    total = [[LONG_ROWS, sum(map(len, lengths))]]
    assert kalam_server.sql("SELECT count(*), sum(length(text)) FROM messy.texts") == total
