"""``kalam insert`` as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading

import nats
import pytest
from patience import PATIENCE_S

from kalam.cli.loading.row_sender import IN_FLIGHT_MAX

TABLE = "quakes.events"


def lines(count: int, start: int = 1) -> str:
    return "".join(f'{{"id": {number}}}\n' for number in range(start, start + count))


def stored(kalam_server, table: str) -> list[int]:
    """The ids in the order of their insert."""
    return [row[0] for row in kalam_server.sql(f"SELECT id FROM {table}")]


def test_every_row_of_a_file_is_inserted_in_order(at_server, kalam_server, table, tmp_path):
    file = tmp_path / "rows.ndjson"
    file.write_text(lines(2_500))
    done = at_server("insert", table, str(file))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith(f"2,500 rows are stored in {table} (")
    assert stored(kalam_server, table) == list(range(1, 2_501))


def test_rows_are_inserted_as_the_user_that_was_named(at_server, kalam_server, create_table):
    table = create_table("id BIGINT PRIMARY KEY", kind="USER")
    assert at_server("insert", table, "--user", "ada", stdin=lines(3)).returncode == 0
    assert kalam_server.sql(f"SELECT COUNT(*) FROM {table}", user="ada") == [[3]]
    assert kalam_server.sql(f"SELECT COUNT(*) FROM {table}", user="ben") == [[0]]


def test_rows_come_from_stdin(at_server, kalam_server, table):
    assert at_server("insert", table, stdin='{"id": 1}\n\n  {"id": 2}').returncode == 0
    assert at_server("insert", table.upper(), "-", stdin='\ufeff{"id": 3}\r\n').returncode == 0
    assert stored(kalam_server, table) == [1, 2, 3]


def test_an_empty_file_inserts_nothing(at_server, table):
    done = at_server("insert", table, stdin="\n \n")
    assert done.returncode == 0
    assert "0 rows are stored" in done.stderr


def test_numbers_arrive_digit_by_digit(at_server, kalam_server, create_table):
    table = create_table("d DECIMAL(38,19), n BIGINT")
    row = '{"d": 1234567890123456789.1234567890123456789, "n": -9223372036854775808}'
    done = at_server("insert", table, stdin=row)
    assert done.returncode == 0, done.stderr
    assert kalam_server.sql(f"SELECT d, n FROM {table}") == [["1234567890123456789.1234567890123456789", -(2**63)]]


def test_a_refused_batch_stops_the_insert_and_the_stored_lines_are_named(at_server, kalam_server, table):
    text = lines(250) + '{"id": 251, "bad": 1}\n' + lines(100_000, 252)
    done = at_server("insert", table, "--batch-rows", "100", stdin=text)
    assert done.returncode == 1
    assert done.stderr.startswith("error [column_not_found]: ")
    assert "bad" in done.stderr.splitlines()[0]
    assert "  lines 1-200: stored\n  lines 201-300: refused, not stored\n" in done.stderr
    rows = stored(kalam_server, table)
    assert f"{len(rows):,} rows are known to be stored" in done.stderr
    assert len(rows) < 5_000, "what was in flight may be stored, the rest is not sent"
    assert not set(range(201, 301)) & set(rows)


def test_a_table_that_does_not_exist_is_named(at_server):
    done = at_server("insert", "cli.nowhere", stdin=lines(3))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error [table_not_found]: ")
    assert "0 rows are known to be stored" in done.stderr


@pytest.mark.parametrize("bad", ["{", "[1]", "7", '{"a": NaN}', '{"a": 1} x', '{"a":' + "[" * 5_000])
def test_a_bad_line_is_named_and_the_batches_before_it_are_stored(at_server, kalam_server, table, bad):
    done = at_server("insert", table, "--batch-rows", "10", stdin=lines(25) + bad + "\n" + lines(3))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: line 26 is not ")
    assert "  lines 1-20: stored\n20 rows are known to be stored" in done.stderr
    assert stored(kalam_server, table) == list(range(1, 21))


def test_a_line_longer_than_a_message_is_named(at_server, table):
    done = at_server("insert", table, stdin='{"id": 1}\n{"a": "' + "x" * 9_000_000 + '"}\n')
    assert done.returncode == 1
    assert "line 2 has 9,000,009 bytes, more than the " in done.stderr


def test_batches_stay_below_the_brokers_message_size(at_server, kalam_server, create_table):
    table = create_table("id BIGINT PRIMARY KEY, text TEXT", kind="SHARED")
    text = "".join(json.dumps({"id": number, "text": "x" * 40_000}) + "\n" for number in range(300))
    done = at_server("insert", table, stdin=text)
    assert done.returncode == 0, done.stderr
    assert kalam_server.sql(f"SELECT COUNT(*) FROM {table}") == [[300]]


@pytest.mark.parametrize("table", ["events", "a.b.c", "a.", ".b", "a.>", "a.*", "a b.c", "1.x", ""])
def test_what_is_no_table_name_is_wrong_usage(kalam, table):
    done = kalam("insert", table, stdin="{}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "namespace.table" in done.stderr


@pytest.mark.parametrize("arguments", [(), (TABLE, "--user", "a.b"), (TABLE, "--batch-rows", "0"), (TABLE, "--x")])
def test_wrong_usage_ends_with_2(kalam, arguments):
    assert kalam("insert", *arguments).returncode == 2


def test_a_missing_file_fails_plainly(kalam):
    done = kalam("insert", TABLE, "no-such-file")
    assert done.returncode == 1
    assert "no-such-file: No such file" in done.stderr


def test_no_broker_is_told_with_what_to_do(kalam, unused_tcp_port):
    done = kalam("insert", TABLE, "--nats-url", f"nats://127.0.0.1:{unused_tcp_port}", stdin="{}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "kalam serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broker_without_a_server_stores_nothing_and_says_so(kalam, nats_url):
    done = kalam("insert", TABLE, "--nats-url", nats_url, stdin=lines(3))
    assert done.returncode == 1
    assert "no Kalam server listens" in done.stderr
    assert "0 rows are known to be stored" in done.stderr


def test_a_lost_connection_leaves_what_was_sent_unknown(start, nats_server, tmp_path):
    """Two batches are answered and the others never are: the broker dies under them."""
    file = tmp_path / "rows.ndjson"
    file.write_text(lines(20 + 10 * IN_FLIGHT_MAX))
    listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(answer_two(nats_server, listening)))
    thread.start()
    assert listening.wait(30)
    process = start(
        "insert", TABLE, str(file), "--batch-rows", "10", "--nats-url", nats_server.url, stderr=subprocess.PIPE
    )
    _, err = process.communicate(timeout=PATIENCE_S)
    thread.join(30)
    text = err.decode()
    assert process.returncode == 1
    assert text.startswith("error [broker_unavailable]: the connection to NATS was lost")
    last = 20 + 10 * IN_FLIGHT_MAX
    told = f"  lines 1-20: stored\n  lines 21-{last}: unknown: stored or not\n20 rows are known to be stored"
    assert told in text


async def answer_two(nats_server, listening: threading.Event) -> None:
    client = await nats.connect(nats_server.url, allow_reconnect=False, error_cb=ignore)
    subscription = await client.subscribe("kalam.api.>")
    await client.flush()
    listening.set()
    for _ in range(2):
        await (await subscription.next_msg(30)).respond(b'{"rows": 10}')
    for _ in range(IN_FLIGHT_MAX):  # of which the last are sent when both answers are there
        await subscription.next_msg(30)
    nats_server.kill()
    await client.close()


def test_what_an_ephemeral_table_discards_is_said(kalam, nats_url):
    listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(answer_once(nats_url, listening)))
    thread.start()
    assert listening.wait(30)
    done = kalam("insert", TABLE, "--nats-url", nats_url, stdin=lines(3))
    thread.join(30)
    assert done.returncode == 0
    assert done.stderr.startswith("1 row is stored")
    assert "2 rows were discarded: the table is EPHEMERAL and nobody listens" in done.stderr


async def answer_once(nats_url: str, listening: threading.Event) -> None:
    client = await nats.connect(nats_url)
    subscription = await client.subscribe("kalam.api.>")
    await client.flush()
    listening.set()
    await (await subscription.next_msg(30)).respond(b'{"rows": 3, "discarded": 2}')
    await client.flush()
    await client.close()


async def ignore(error: Exception) -> None:
    """The broker is killed on purpose."""


def test_an_interrupt_says_what_is_stored(start, kalam_server, table):
    arguments = ("--batch-rows", "1", "--nats-url", kalam_server.nats_url)
    process = start("insert", table, *arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(lines(3).encode())
    process.stdin.flush()
    pause = threading.Event()
    for _ in range(600):
        if stored(kalam_server, table) == [1, 2]:  # the third waits to see whether a row follows into its batch
            break
        pause.wait(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"interrupted" in err
    assert b"lines 1-2: stored" in err
    assert b"Traceback" not in err
