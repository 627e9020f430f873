"""Whatever is done to a few keys, in whatever order, and wherever the process is cut off, it reads as a dictionary."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import re
import sqlite3
import urllib.error
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
from change_feed import last_seq, read_feed, replay
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from patience import PATIENCE_S
from server_process import ServerProcess, SqlFailed
from table_model import KEYS, Statement, TableModel, Types

SOURCES = Path(__file__).parents[2] / "kalam"
NAMED = {name for file in SOURCES.rglob("*.py") for name in re.findall(r'crash_point\("(.+?)"\)', file.read_text())}
POINTS = sorted(name for name in NAMED if name.startswith(("commit.", "compact.", "flush.", "outbox.")))
"""Those that a change of rows, a flush or a compaction comes by; others are of one statement, and its tests'."""
STATUS = 137
GONE = (ConnectionError, http.client.HTTPException, urllib.error.URLError)

TABLES = st.integers(0, 1)
PLACES = st.integers(0, 5)
NUMBERS = st.none() | st.integers(0, 4)
TEXTS = st.sampled_from([None, "", "x", "y"])
USERS = st.sampled_from(["ann", "bob"])
ROWS = st.lists(st.tuples(PLACES, NUMBERS, TEXTS), min_size=1, max_size=4)
ADDED = st.tuples(st.just("add_column"), st.just("INT"), NUMBERS) | st.tuples(
    st.just("add_column"), st.just("TEXT"), TEXTS
)
INSERTS = st.one_of(
    st.tuples(st.just("insert"), USERS, ROWS),
    st.tuples(st.just("insert_key"), USERS, PLACES),
    st.tuples(st.sampled_from(["insert_or_ignore", "upsert"]), USERS, PLACES, NUMBERS, TEXTS),
)
CHANGES = st.one_of(
    st.tuples(st.just("update_one"), USERS, PLACES, NUMBERS),
    st.tuples(st.just("update_some"), USERS, st.integers(0, 4)),
    st.tuples(st.sampled_from(["move", "exchange"]), USERS, PLACES, PLACES),
    st.tuples(st.just("delete"), USERS, st.lists(PLACES, min_size=1, max_size=3)),
    st.tuples(st.just("delete_all"), USERS),
    st.just(("truncate",)),
)
ALTERATIONS = ADDED | st.tuples(st.sampled_from(["drop_column", "rename_column"]), PLACES)

Drawn = tuple[Any, ...]


class HotAndCold(RuleBasedStateMachine):
    """A SHARED and a USER table, each with its model; ``end`` is how the server ends once in each example, if it does.

    That is a crash point, "kill" or "stop".
    """

    server: ClassVar[ServerProcess]
    end: ClassVar[str | None] = None
    numbers: ClassVar[Iterator[int]] = itertools.count(1)

    @initialize(key_types=st.tuples(st.sampled_from(sorted(KEYS)), st.sampled_from(sorted(KEYS))))
    def create(self, key_types: tuple[Types, Types]) -> None:
        number, self.has_ended, self.touched = next(self.numbers), False, {0, 1}
        if self.server.process is None or self.server.process.poll() is not None:  # an example before failed there
            self.server.restart()
        self.tables = [
            TableModel(f"model.shared{number}", "SHARED", key_types[0]),
            TableModel(f"model.user{number}", "USER", key_types[1]),
        ]
        for table in self.tables:
            self.server.sql(table.create())

    def carry_out(self, place: int, drawn: Drawn) -> None:
        self.touched.add(place)
        self.tables[place] = carried_out(self.server, self.tables[place], drawn)

    @rule(place=TABLES, drawn=INSERTS)
    def insert(self, place: int, drawn: Drawn) -> None:
        self.carry_out(place, drawn)

    @rule(place=TABLES, drawn=CHANGES)
    def change(self, place: int, drawn: Drawn) -> None:
        self.carry_out(place, drawn)

    @rule(place=TABLES, drawn=ALTERATIONS)
    def alter(self, place: int, drawn: Drawn) -> None:
        self.carry_out(place, drawn)

    @rule(place=TABLES)
    def flush(self, place: int) -> None:
        self.touched.add(place)
        self.server.sql(f"FLUSH TABLE {self.tables[place].name}")

    @rule(place=TABLES)
    def compact(self, place: int) -> None:
        self.touched.add(place)
        self.server.sql(f"COMPACT TABLE {self.tables[place].name}")

    @rule(place=TABLES, user=USERS, of_key=PLACES)
    def look_at_one(self, place: int, user: str, of_key: int) -> None:
        table = self.tables[place]
        row = table.copies[user].rows.get(table.keys[of_key])
        condition, params = table.by_key(of_key)
        text = f"SELECT {table.listed} FROM {table.name} WHERE {condition}"
        assert self.server.sql(text, *params, user=user) == table.shown({} if row is None else {0: row})

    @precondition(lambda self: self.end is not None and not self.has_ended)
    @rule(place=TABLES, drawn=INSERTS | CHANGES | ALTERATIONS)
    def end_and_start_again(self, place: int, drawn: Drawn) -> None:
        self.has_ended, self.touched = True, {0, 1}
        match self.end:
            case "stop":
                self.server.stop()
            case "kill":
                self.server.kill()
            case point:
                assert point is not None
                may_be = cut_off(self.server, point, self.tables[place], drawn)
        self.server.restart()
        if self.end in POINTS:
            agreeing = [model for model in may_be if agrees(self.server, model)]
            assert agreeing, "the table holds neither what it held nor what the statement makes of it"
            self.tables[place] = agreeing[0]
        assert_no_strays(self.server)

    @invariant()
    def reads_as_the_model(self) -> None:
        """Of the tables what a step touched: the other is read when it is touched next, and in the end."""
        for place in sorted(self.touched):
            assert_reads_as(self.server, self.tables[place])
        self.touched = set()

    def teardown(self) -> None:
        if self.end is not None and not self.has_ended:
            self.end_and_start_again(1, ("upsert", "ann", 1, 1, "x"))
        for statement in ("FLUSH", "COMPACT"):
            for table in self.tables:
                self.server.sql(f"{statement} TABLE {table.name}")
                assert_reads_as(self.server, table)
        for table in self.tables:
            for owner in table.owners:
                asyncio.run(assert_told(self.server, table, owner))
            self.server.sql(f"DROP TABLE {table.name}")


def carried_out(server: ServerProcess, table: TableModel, drawn: Drawn) -> TableModel:
    """Carry a statement out; the model of the table then."""
    statement = built(table, drawn)
    after = deepcopy(table)
    try:
        server.sql(statement.text, *statement.params, user=statement.user)
    except SqlFailed as exc:
        if statement.effect is not None or exc.code != "duplicate_key":
            raise
        return table
    assert statement.effect is not None, f"{statement.text} had to be refused"
    statement.effect(after)
    return after


def built(table: TableModel, drawn: Drawn) -> Statement:
    name, *arguments = drawn
    statement: Statement = getattr(table, name)(*arguments)
    return statement


def cut_off(server: ServerProcess, point: str, table: TableModel, drawn: Drawn) -> list[TableModel]:
    """Let the process end at this point while a statement runs; what the table may be then."""
    some = ("upsert", "ann", 0, 3, "y")
    maintenance = {"flush": "FLUSH", "compact": "COMPACT"}.get(point.split(".")[0])
    if maintenance is not None:
        table = carried_out(server, table, some)  # at least something has to be flushed
    if maintenance == "COMPACT":
        server.sql(f"FLUSH TABLE {table.name}")
        table = carried_out(server, table, some)
        server.sql(f"FLUSH TABLE {table.name}")
    armed = Path(server.environment["KALAM_CRASHPOINT"][1:])
    armed.write_text(point)
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(until_cut_off, server, table, [drawn] if maintenance else [drawn, some])
        if maintenance is not None:
            with pytest.raises(GONE):
                server.sql(f"{maintenance} TABLE {table.name}")
        may_be = changing.result()
    assert server.wait_end() == STATUS
    armed.write_text("")
    return may_be


def until_cut_off(server: ServerProcess, table: TableModel, statements: Sequence[Drawn]) -> list[TableModel]:
    """Carry statements out, each of which may be the last; what the table may be after them."""
    may_be = [table]
    for drawn in statements:
        try:
            may_be = [carried_out(server, may_be[-1], drawn)]
        except GONE:
            after = deepcopy(may_be[-1])
            (built(after, drawn).effect or (lambda model: None))(after)
            may_be.append(after)
    return may_be


def agrees(server: ServerProcess, table: TableModel) -> bool:
    try:
        assert_reads_as(server, table)
    except (AssertionError, SqlFailed):
        return False
    return True


def assert_reads_as(server: ServerProcess, table: TableModel) -> None:
    """The table has these columns; each copy has these rows, also by key, these deleted ones, and so many versions."""
    for owner in table.owners:
        model = table.copies[owner]
        place = model.changes % len(table.keys)
        live, count, scanned, one, deleted = server.results(
            f"SELECT * FROM {table.name}; SELECT count(*) FROM {table.name}; "
            f"SELECT count(*) FROM {table.name} WHERE {table.key[-1].name} IS NOT NULL; "
            f"SELECT {table.listed} FROM {table.name} WHERE {table.has_key(place)}; "
            f"SELECT {table.listed} FROM {table.name} WHERE _deleted",
            user=owner,
        )
        names = [column["name"] for column in live["columns"]]
        assert names == [*(column.name for column in table.columns), "_updated", "_deleted"]
        assert by_key(row[:-2] for row in live["rows"]) == by_key(table.shown(model.rows))
        assert all(row[-1] is False for row in live["rows"])
        assert count["rows"] == scanned["rows"] == [[len(model.rows)]]
        row = model.rows.get(table.keys[place])
        assert one["rows"] == table.shown({} if row is None else {0: row})
        assert by_key(deleted["rows"]) == by_key(table.shown(model.deleted))
        assert versions(server, table, owner) == model.changes


def by_key(rows: Any) -> list[str]:
    """The rows in an order of their own; a list, so that a doubled one shows."""
    return sorted(json.dumps(list(row)) for row in rows)


def versions(server: ServerProcess, table: TableModel, owner: str) -> int:
    """How many versions a copy has ever had, from the database itself."""
    query = """SELECT max(flushed_seq, ifnull((SELECT max(first_seq + row_count - 1) FROM log
        WHERE log.copy_id = copies.copy_id), 0)) FROM copies JOIN tables USING (table_id)
        WHERE namespace || '.' || table_name = ? AND user_id = ?"""
    parameters = (table.name, owner if table.kind == "USER" else "")
    with closing(sqlite3.connect(f"file:{server.data_dir / 'kalam.db'}?mode=ro", uri=True)) as conn:
        found = conn.execute(query, parameters).fetchone()
    return 0 if found is None else int(found[0])


async def assert_told(server: ServerProcess, table: TableModel, owner: str) -> None:
    """The feed of the copy has every change, and makes the same rows, as they were when they were committed."""
    model = table.copies[owner]
    subject = f"kalam.{f'user.{owner}' if table.kind == 'USER' else 'shared'}.{table.name}.>"
    async with asyncio.timeout(PATIENCE_S):
        while last_seq(feed := await read_feed(server.nats_url, subject)) < model.changes:
            pass
    assert last_seq(feed) == model.changes
    for row in itertools.chain.from_iterable(message.rows for message in feed):
        for name in ("k2", "l2", "m2"):
            if name in row:
                row[name[0]] = row.pop(name)
    told = replay(feed, *(column.told for column in table.key))
    told = {tuple(row[column.told] for column in table.key): row for row in told.values()}
    found = server.sql(f"SELECT {table.key_names}, _updated FROM {table.name}", user=owner)
    updated = {tuple(row[:-1]): row[-1] for row in found}
    assert {key: row.pop("_updated") for key, row in told.items()} == updated
    assert not any(row.pop("_deleted") for row in told.values())
    assert told == model.told


def assert_no_strays(server: ServerProcess) -> None:
    named = {path for [path] in server.sql("SELECT path FROM system.segments")}
    found = {path.name for kind in ("shared", "user") for path in (server.data_dir / kind).rglob("*") if path.is_file()}
    assert found == named


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose crash points are armed by writing into a file."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "armed").write_text("")
    server = ServerProcess(
        folder / "data", environment={"KALAM_CRASHPOINT": f"@{folder / 'armed'}", "KALAM_ICEBERG": "false"}
    ).start()
    server.sql("CREATE NAMESPACE model")
    yield server
    server.kill()


@pytest.fixture
def run_machine(server: ServerProcess) -> Callable[..., None]:
    def run(end: str | None, examples: int, steps: int) -> None:
        machine = type("HotAndColdUntil", (HotAndCold,), {"server": server, "end": end})
        machine = seed(zlib.crc32(str(end).encode()))(machine)  # the same statements each time, others for each end
        chosen = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # to make an example smaller would take longer than a test may
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(machine, settings=chosen)

    return run


def test_hot_and_cold_read_as_one_dictionary(run_machine: Callable[..., None]) -> None:
    run_machine(None, 20, 30)


@pytest.mark.parametrize("end", ["stop", "kill", *POINTS])
def test_they_do_so_after_a_new_start(run_machine: Callable[..., None], end: str) -> None:
    run_machine(end, 2, 30)
