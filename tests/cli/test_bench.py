"""``kalam bench`` in small: what every measurement gives, what it counts, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from uuid import UUID

import msgspec
import pyarrow as pa
import pytest
import uvloop
from cli_process import environment
from patience import PATIENCE_S
from running_processes import processes_that_name
from warm_start import may_be_warm, run_kalam_command

from kalam.bench.asker import AskerTask, Asking, requests
from kalam.bench.command import MEASUREMENTS
from kalam.bench.figures import Figure, Unit
from kalam.bench.listeners import Pattern
from kalam.bench.pace import TICK_S, due
from kalam.bench.real_postgres import NoPostgres, find_postgres
from kalam.bench.rows import Encoding, paced_payload, payloads
from kalam.bench.sizes import Sizes

pytestmark = pytest.mark.timeout(600)
BENCH_S = 500
VIEW_COUNTS = ("viewed_rows", "filled_rows", "cost_rows", "many_rows", "refreshed_rows", "followed_rows")
QUICK = Sizes.chosen(quick=True)


@pytest.fixture
def temporary():
    """The folder in which a bench makes its own; other users get there, as whom PostgreSQL runs where we are root."""
    folder = Path(tempfile.mkdtemp(prefix="kalam-test-bench-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bench(temporary, start):
    """Run the bench to its end, it and its tasks in forks or ``cold``, and return its status and what it printed."""

    def run(*arguments, cold=False):
        env = {"TMPDIR": str(temporary)}
        if cold or not may_be_warm(arguments, env):
            process = start("bench", *arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = process.communicate(timeout=BENCH_S)
            status = process.returncode
        else:
            arguments = ["bench", *arguments]
            status, out, err = run_kalam_command(arguments, environment(**env), temporary.parent, b"", BENCH_S)
        return subprocess.CompletedProcess(arguments, status, out.decode(), err.decode())

    return run


def check_stored_tables(figures):
    """Every figure of the group is there, of as many rows as asked for."""
    asked = [figure["asked"] for figure in figures if "asked" in figure]
    assert asked == [QUICK.point_reads, QUICK.point_reads // 4, QUICK.single_updates]
    assert len([figure for figure in figures if figure["name"].startswith("SELECT, NATS, alone, p")]) == 2
    assert [figure["updated_rows"] for figure in figures if "updated_rows" in figure] == [QUICK.updated_rows]
    assert [figure["imported_rows"] for figure in figures if "imported_rows" in figure] == [QUICK.imported_rows] * 2
    assert [figure["loaded_rows"] for figure in figures if "loaded_rows" in figure] == [QUICK.loaded_rows] * 2
    [compacted] = [figure for figure in figures if "compacted_rows" in figure]
    assert (compacted["compacted_rows"], compacted["segments_after"]) == (QUICK.flush_rows, 1)
    empty, beside = (figure for figure in figures if "random_rows" in figure)
    assert empty["random_rows"] == beside["random_rows"] == QUICK.random_rows
    assert beside["duplicate_refused"]
    lasting = [figure["lasting_rows"] for figure in figures if "lasting_rows" in figure]
    assert lasting == [QUICK.lasting_rows // 10, QUICK.lasting_rows // 2, QUICK.lasting_rows]
    cold = [figure["cold_rows_asked"] for figure in figures if "cold_rows_asked" in figure]
    assert cold == [QUICK.cold_point_reads, QUICK.cold_point_reads // 10] * len(QUICK.cold_point_rows)
    assert len(figures) == 20


def check_postgres(figures):
    """Every figure of the group is there, of as much as asked for, and beside a PostgreSQL where there is one."""
    rows = {figure["situation"].partition(" ")[0]: figure["asked_of_door"] for figure in figures}
    assert rows == {
        f"{QUICK.pg_rows:,}": QUICK.pg_rows,
        f"{QUICK.pg_many_rows:,}": QUICK.pg_many_rows,
        "one": QUICK.pg_points,
        "SELECT": QUICK.pg_constants,
        f"{QUICK.pg_connections:,}": QUICK.pg_connections,
    }
    assert len(figures) == 18
    assert {figure["measurement"] for figure in figures if figure["bare_engine"]} == beside_postgres()


def check_views(figures):
    """Every figure of the group is there, of as much as asked for, and beside a PostgreSQL where there is one."""
    found = {name: [figure[name] for figure in figures if name in figure] for name in VIEW_COUNTS}
    followed = round(QUICK.feed_per_s * QUICK.paced_s)
    refreshed = round(10 * QUICK.paced_s) * 1_000
    assert found == {
        "viewed_rows": [QUICK.viewed_rows] * 2,
        "filled_rows": [QUICK.viewed_rows],
        "cost_rows": [QUICK.viewed_rows] * 2,
        "many_rows": [QUICK.viewed_rows // 5],
        "refreshed_rows": [refreshed],
        "followed_rows": [followed] * 2,
    }
    assert {figure["bare_engine"] is not None for figure in figures if "cost_rows" in figure} == {
        bool(beside_postgres())
    }


def check_peers(figures):
    """Every figure of the group is there, beside each of its peers, of as much as asked for."""
    stored = [figure["peer_rows"] for figure in figures if "peer_rows" in figure]
    of_a_load = 2 if beside_postgres() else 1
    assert stored == [QUICK.peer_single_rows] * of_a_load + [QUICK.peer_batched_rows] * of_a_load
    assert [figure["peer_delivered"] for figure in figures if "peer_delivered" in figure] == [100, 100]
    events = [figure["peer_events"] for figure in figures if "peer_events" in figure]
    assert events == [QUICK.peer_events] * 2 + [1_000] * 4 + [5_000] * 4
    assert all(figure["bare"] > 0 for figure in figures)
    assert len(figures) == 2 * of_a_load + 12


def beside_postgres():
    """The measurements that a PostgreSQL on this machine is measured in."""
    try:
        find_postgres()
    except NoPostgres:
        return set()
    return {"postgres"}


def test_a_quick_run_makes_every_measurement_and_leaves_nothing_behind(bench, temporary):
    done = bench("--quick", "--json", "--cold-rows", "20000")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    figures = answer["figures"]
    assert list(dict.fromkeys(figure["measurement"] for figure in figures)) == list(MEASUREMENTS)
    assert all(figure["complete"] for figure in figures)
    assert all(figure["kalam"] >= 0 for figure in figures)
    assert answer["sizes"]["cold_rows"] == 20_000
    compared = [figure for figure in figures if figure["bare_engine"] and figure["bare"]]
    assert {figure["measurement"] for figure in compared} == set(MEASUREMENTS) - ({"postgres"} - beside_postgres())
    assert all(
        figure["ratio"] == pytest.approx(figure["kalam"] / figure["bare"], rel=0.1, abs=0.001) for figure in compared
    )
    events, *delays = (figure for figure in figures if figure["measurement"] == "streams")
    assert events["received"] == events["bare_received"] == QUICK.events
    assert all(delay["received"] == QUICK.paced_per_s * QUICK.paced_s for delay in delays)
    stored = [figure["stored_rows"] for figure in figures if "stored_rows" in figure]
    assert stored == [QUICK.single_rows, QUICK.batched_rows]
    published = [figure["received"] for figure in figures if figure.get("published")]
    assert published == [QUICK.single_rows, QUICK.batched_rows]
    assert len([figure for figure in figures if "took_ms" in figure]) == 20
    assert len([figure for figure in figures if "of_cold" in figure]) == 5
    assert [figure["row_bytes"] > 100 * QUICK.flush_rows for figure in figures if "row_bytes" in figure] == [True]
    check_stored_tables([figure for figure in figures if figure["measurement"] == "stored_tables"])
    stream_tables = [figure for figure in figures if figure["measurement"] == "stream_tables"]
    delivered = {figure["situation"]: figure["received"] for figure in stream_tables if "subscribers" in figure}
    assert delivered == {
        "100-row json to 1 subscriber": QUICK.events,
        "100-row msgpack to 1 subscriber": QUICK.events,
        "100-row arrow to 1 subscriber": QUICK.events,
        "single events to 20 subscribers": QUICK.fan_out_events,
        "100-row json to 20 subscribers": QUICK.fan_out_events,
    }
    discarded = [figure["discarded"] for figure in stream_tables if "discarded" in figure]
    assert discarded == [QUICK.events, QUICK.events, QUICK.probes, QUICK.probes]
    assert len([figure for figure in stream_tables if figure.get("window_rows") == QUICK.window_rows]) == 4
    logins = [figure["logins"] for figure in figures if "logins" in figure]
    assert logins == [QUICK.logins, QUICK.logins, QUICK.crowd_logins]
    check_postgres([figure for figure in figures if figure["measurement"] == "postgres"])
    check_peers([figure for figure in figures if figure["measurement"] == "peers"])
    analytic = [figure["name"] for figure in figures if "analytic" in figure]
    assert len(analytic) == 7
    assert analytic[-1] == "six together"
    read = [figure["read_messages"] for figure in figures if "read_messages" in figure]
    assert read == [QUICK.adopted_messages] * 3
    assert [figure["kept_messages"] for figure in figures if "kept_messages" in figure] == [QUICK.adopted_messages]
    check_views([figure for figure in figures if figure["measurement"] == "views"])
    assert [figure["adopted_rows"] for figure in figures if "adopted_rows" in figure] == [QUICK.window_rows] * 2
    assert [figure["keys"] for figure in figures if "watched_keys" in figure] == [QUICK.bucket_keys] * 4
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []


def test_some_measurements_are_a_plain_table_in_a_pipe(bench):
    done = bench("--quick", "--only", "idle,inserts", "--seconds", "0.2", cold=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["measurement", "situation"]
    assert {line.split()[0] for line in lines[2:] if line} == {"idle", "inserts", "Kalam"}
    assert "idle: watching for 0.4 s" in done.stderr.splitlines()
    assert "\x1b" not in done.stdout + done.stderr, "control characters where there is no terminal"


@pytest.mark.parametrize(
    "arguments", [("--only", "inserts,speed"), ("--cold-rows", "10"), ("--point-rows", "10"), ("--seconds", "0")]
)
def test_what_cannot_be_measured_is_wrong_usage(bench, temporary, arguments):
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert arguments[0] in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_bench_that_is_interrupted_cleans_up(start, temporary, number):
    process = start("bench", env={"TMPDIR": str(temporary)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert any(b"watching for 10 s" in line for line in process.stderr)
    assert processes_that_name(str(temporary))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert list(temporary.iterdir()) == []
    assert processes_that_name(str(temporary)) == []


def test_a_message_of_one_row_is_that_row_and_one_of_several_an_array():
    single = [json.loads(payload) for payload in payloads(5, 3, 1)]
    assert [row["id"] for row in single] == [5, 6, 7]
    assert [json.loads(payload) for payload in payloads(5, 3, 2)] == [single[:2], single[2:]]
    assert all(100 <= len(payload) <= 130 for payload in payloads(1_000_000, 100, 1))
    paced = json.loads(paced_payload(12_345))
    assert paced["id"] == 12_345
    assert paced.keys() == single[0].keys()


def test_rows_are_the_same_in_every_encoding():
    [from_json] = (json.loads(payload) for payload in payloads(5, 3, 3))
    [from_msgpack] = (msgspec.msgpack.decode(payload) for payload in payloads(5, 3, 3, Encoding.MSGPACK))
    [arrow] = payloads(5, 3, 3, Encoding.ARROW)
    table = pa.ipc.open_stream(arrow).read_all()
    milliseconds = table["ts"].cast(pa.int64())
    from_arrow = table.set_column(table.column_names.index("ts"), "ts", milliseconds).to_pylist()
    assert from_json == from_msgpack == from_arrow


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_a_pattern_is_found_where_a_piece_ends_within_it(size):
    data = b"MSG a 1 1\r\nM\r\nMSG MSG b 1 2\r\nMS\r\nMMSG "
    pattern = Pattern(b"MSG ")
    assert sum(pattern.count(data[at : at + size]) for at in range(0, len(data), size)) == data.count(b"MSG ")


def test_a_figure_without_a_bare_engine_has_no_ratio():
    assert Figure(name="x", situation="y", unit=Unit.MS, kalam=1.0).ratio is None
    assert Figure(name="x", situation="y", unit=Unit.MS, kalam=1.0, bare=0.0).ratio is None
    assert Figure(name="x", situation="y", unit=Unit.MS, kalam=1.0, bare=2.0).ratio == 0.5


def test_random_keys_are_uuids_and_differ():
    keys = [json.loads(payload)["id"] for payload in payloads(-500, 2_000, 1, random_keys=True)]
    assert len(set(keys)) == 2_000
    assert all(str(UUID(key)) == key for key in keys)


@pytest.mark.parametrize("asking", list(Asking))
def test_a_request_names_no_key_twice_and_none_beyond_the_table(asking):
    each = 100 if asking is Asking.UPSERT else 1
    task = AskerTask(
        url="", subject="", table="n.t", asking=asking, keys=1_000, requests=50, in_flight=1, keys_each=each
    )
    for request in map(json.loads, requests(task)):
        keys = [int(key) for key in re.findall(r"\((\d+),", request["sql"])] or request["params"][:1]
        assert len(set(keys)) == len(keys) == each
        assert all(0 <= key < 1_000 for key in keys)


def test_a_paced_sender_sends_all_in_order_and_sleeps_between_its_looks():
    count, per_s = 20, 1_000

    async def looks():
        return [list(numbers) async for numbers in due(count, per_s)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(looks())
    assert [number for numbers in found for number in numbers] == list(range(count))
    # One look a tick; the clock of the loop may be a part of a tick early. Without a pause there are thousands.
    assert len(found) <= 2 * round(count / per_s / TICK_S)
