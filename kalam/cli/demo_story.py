"""The demo's story, scene by scene. Every claim that it makes is checked, and the exit status says whether all held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from kalam.cli import demo_quakes as data
from kalam.cli.demo_quakes import EVENTS, LIVE, NEARBY, READERS
from kalam.cli.demo_replay import replay
from kalam.cli.demo_server import DemoServer
from kalam.cli.demo_stage import Stage
from kalam.cli.demo_watch import SUBJECT, watch
from kalam.cli.failure import CommandFailed
from kalam.cli.http import Refusal, ask_sql
from kalam.cli.problem_text import problem_text
from kalam.credentials import Credentials

REPLAY_S: Final = 15.0
HOURS_SHOWN: Final = 6
UNSEEN: Final = ("table_not_found", "namespace_not_found", "unauthenticated")
FLUSH_DETAIL: Final = ("job_id",)  # not shown


def run_demo(*, fast: bool, data_dir: Path | None, keep: bool, guarded: bool = False) -> int:
    """Run the demo and return its exit status: 0 only if every check held."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    stage = Stage()
    password = secrets.token_urlsafe() if guarded else None
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_home(data_dir, keep))
        server = stack.enter_context(DemoServer(home / "data" if data_dir is None else home, _log(home), password))
        Story(stage, server, REPLAY_S if not fast else 0.0, password).tell()
    where = home / "data" if data_dir is None else home
    _go_on(stage, where, kept=keep or data_dir is not None, guarded=guarded)
    return 1 if stage.failed else 0


class Story:
    """The scenes, which share the server and the facts learned so far."""

    def __init__(self, stage: Stage, server: DemoServer, replay_s: float, password: str | None = None) -> None:
        self._stage = stage
        self._server = server
        self._replay_s, self._password = replay_s, password
        self._quakes = data.load_quakes()
        self._expected: dict[str, int] = {}

    def tell(self) -> None:
        """Play every scene."""
        self._stage.title(
            "Kalam demo: SQL tables on NATS",
            f"A week of real earthquakes ({len(self._quakes):,} events, USGS) flows through all three kinds of table.",
        )
        self._start()
        self._create()
        if self._password is not None:
            self._make_users()
        self._replay()
        self._ask()
        self._compare_readers()
        self._flush()
        self._update()
        self._kill_and_restart()
        self._watch()

    def _start(self) -> None:
        self._stage.scene("A server: one process with NATS, SQLite, Parquet and DataFusion inside")
        self._stage.say(self._serve, "green")
        self._stage.say(f"SQL over HTTP at {self._server.http_url}, NATS at {self._server.nats_url}")

    def _create(self) -> None:
        self._stage.scene("Three tables, one of each kind")
        names = [row[0] for row in self._sql("SHOW NAMESPACES", show=False)["rows"]]
        if data.NAMESPACE in names:
            raise CommandFailed(f"error: this data directory has a namespace {data.NAMESPACE!r} already; give another")
        self._sql(f"CREATE NAMESPACE {data.NAMESPACE}")
        for purpose, statement in data.CREATE_TABLES.items():
            self._stage.statement(_shortened(statement))
            self._stage.say(f"  {purpose}", "dim")
            self._sql(statement, show=False)

    @property
    def _serve(self) -> str:
        return "$ kalam serve" if self._password is None else "$ kalam serve --auth on"

    def _make_users(self) -> None:
        self._stage.scene("Users: nothing is allowed until it is granted")
        for user in (data.FEED_USER, *READERS, data.STRANGER):
            self._sql(f"CREATE USER {user} WITH PASSWORD $1", params=[self._password])
        for grant in data.GRANTS:
            self._sql(grant)
        reader = next(iter(READERS))
        self._check_unseen(f"{reader} is not told that {EVENTS} exists", data.COUNTS[EVENTS], self._login(reader))
        self._check_unseen("a stranger is not let in", data.COUNTS[EVENTS], Credentials())

    def _check_unseen(self, claim: str, statement: str, login: Credentials) -> None:
        try:
            ask_sql(self._server.http_url, statement, login=login)
        except Refusal as exc:
            self._stage.check(f"{claim} ({exc.problem['code']})", exc.problem["code"] in UNSEEN)
        else:
            self._stage.check(claim, False)

    def _login(self, user: str) -> Credentials:
        return Credentials(user=user, secret=self._password)

    def _replay(self) -> None:
        self._stage.scene("The week goes through NATS: plain JSON on plain subjects")
        self._stage.say(
            f"publishing to kalam.api.<user>.insert.{data.NAMESPACE}.<table>, subscribed to kalam.stream.{LIVE}.>"
        )
        with self._stage.progress() as bar:
            task = bar.add_task("earthquakes", total=len(self._quakes))
            replayed = asyncio.run(
                replay(
                    self._server.nats_url,
                    self._quakes,
                    password=self._password,
                    seconds=self._replay_s,
                    on_begin=lambda: self._stage.say(
                        f"what the subscriber sees (only magnitude {data.STRONG:g} and more shown):", "dim"
                    ),
                    on_sent=lambda rows: bar.advance(task, rows),
                    on_strong=self._stage.quake,
                )
            )
        total = len(self._quakes)
        self._expected = replayed.acknowledged
        everywhere = replayed.acknowledged.get(LIVE) == replayed.acknowledged.get(EVENTS) == total
        self._stage.check(f"{total:,} events acknowledged by {LIVE} and by {EVENTS}", everywhere)
        self._stage.check(f"{replayed.received:,} messages reached the subscriber", replayed.received == total)
        self._stage.check("SQL counts exactly what was acknowledged", self._counts() == self._expected)

    def _ask(self) -> None:
        self._stage.scene("Questions, over HTTP")
        strongest = self._sql(data.STRONGEST)
        top = max(quake.mag for quake in self._quakes)
        self._stage.check(
            f"the strongest is magnitude {top}", bool(strongest["rows"]) and strongest["rows"][0][0] == top
        )
        networks = self._sql(data.BY_NETWORK)
        busiest = max(sum(quake.net == row[0] for quake in self._quakes) for row in networks["rows"])
        self._stage.check("the busiest network leads the list", networks["rows"][0][1] == busiest)

    def _compare_readers(self) -> None:
        self._stage.scene("One USER table, two users: the same question, each sees only their own rows")
        for reader, (region, networks) in READERS.items():
            answer = self._sql(data.MINE, user=reader)
            own = sum(quake.net in networks for quake in self._quakes)
            self._stage.check(f"{reader} watches {region} and sees {own} earthquakes", answer["rows"][0][0] == own)
        stranger = self._sql(data.MINE, user=data.STRANGER, show=False)
        self._stage.check("eve, who has no rows, sees none", stranger["rows"][0][0] == 0)

    def _flush(self) -> None:
        self._stage.scene("From the hot store to Parquet")
        self._sql(f"FLUSH ALL TABLES IN {data.NAMESPACE}", leave_out=FLUSH_DETAIL)
        from pyarrow.parquet import read_metadata

        files = sorted(self._server.data_dir.rglob("*.parquet"))
        rows = [read_metadata(file).num_rows for file in files]
        columns = [("folder", "TEXT"), ("rows", "BIGINT"), ("bytes", "BIGINT")]
        self._stage.say("what lies on the disk now:", "dim")
        self._stage.result(
            {
                "columns": [{"name": name, "type": kind} for name, kind in columns],
                "rows": [
                    [str(file.relative_to(self._server.data_dir).parent) + "/", count, file.stat().st_size]
                    for file, count in zip(files, rows, strict=True)
                ],
            }
        )
        stored = sum(count for name, count in self._expected.items() if name != LIVE)
        self._stage.check(
            f"{len(files)} Parquet files hold all {stored:,} rows of the two stored tables", sum(rows) == stored
        )
        self._stage.check("SQL still counts the same", self._counts() == self._expected)

    def _update(self) -> None:
        self._stage.scene("Rows in Parquet can be updated all the same")
        self._sql(data.REVIEW)
        answer = self._sql(data.BY_STATUS)
        self._stage.check(
            "every event is reviewed now, and each is there once", answer["rows"] == [["reviewed", len(self._quakes)]]
        )

    def _kill_and_restart(self) -> None:
        self._stage.scene("The plug is pulled")
        before = self._counts()
        self._stage.say(f"$ kill -9 {self._server.pid}", "green")
        self._server.kill()
        self._stage.say(self._serve, "green")
        self._server.start()
        after = self._counts()
        self._stage.result(
            {
                "columns": [
                    {"name": "table", "type": "TEXT"},
                    {"name": "before", "type": "BIGINT"},
                    {"name": "after", "type": "BIGINT"},
                ],
                "rows": [[name, count, after.get(name)] for name, count in before.items()],
            }
        )
        self._stage.check("everything that was acknowledged is still there", after == before == self._expected)
        reviewed = self._sql(data.BY_STATUS, show=False)["rows"]
        self._stage.check("and so is the UPDATE", reviewed == [["reviewed", len(self._quakes)]])

    def _watch(self) -> None:
        self._stage.scene("A view that follows the table, while somebody listens")
        self._sql(data.CREATE_VIEW)
        self._sql(data.VIEW_STATE)
        self._stage.check("nobody listens, so it sleeps", self._view_state() == "asleep")
        self._stage.say(f"$ nats sub '{SUBJECT}'", "green")

        def change() -> None:
            self._sql(data.VIEW_STATE)
            self._sql(data.REVISE)

        changes = asyncio.run(
            watch(
                self._server.nats_url,
                password=self._password,
                is_running=lambda: self._view_state() == "running",
                change=change,
                expected=data.revised_hours(self._quakes),
            )
        )
        self._stage.say("what the subscriber hears, the strongest of each network and hour:", "dim")
        for row, old in sorted(changes, key=lambda change: -change[0]["strongest"])[:HOURS_SHOWN]:
            hour, strongest = row["hour"][:16].replace("T", " "), f"M {old['strongest']:.1f} → M {row['strongest']:.1f}"
            self._stage.say(f"  {hour}  {row['net']}  {strongest}")
        total = data.revised_hours(self._quakes)
        self._stage.check(f"the strongest of {total} hours has changed, and each was told once", len(changes) == total)
        same = self._sql(data.VIEW_ROWS, show=False)["rows"] == self._sql(data.VIEW_AGAIN, show=False)["rows"]
        self._stage.check("the view is what its SELECT says", same)
        self._stage.say("The subscriber has left: in half a minute the view sleeps again, and costs nothing.", "dim")

    def _view_state(self) -> str:
        return str(self._sql(data.VIEW_STATE, show=False)["rows"][0][1])

    def _counts(self) -> dict[str, int]:
        """The rows of each table, and of each reader's copy, as SQL counts them."""
        counts = {table: self._count(table, data.FEED_USER) for table in (LIVE, EVENTS)}
        return counts | {f"{NEARBY} of {reader}": self._count(NEARBY, reader) for reader in READERS}

    def _count(self, table: str, user: str) -> int:
        return int(self._sql(data.COUNTS[table], user=user, show=False)["rows"][0][0])

    def _sql(
        self,
        statement: str,
        *,
        user: str | None = None,
        params: Sequence[Any] = (),
        show: bool = True,
        leave_out: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Run one statement over HTTP and return its result."""
        if show:
            self._stage.statement(statement, user)
        try:
            login = self._login(user or "admin")
            answer = json.loads(ask_sql(self._server.http_url, statement, login=login, params=params))
        except Refusal as exc:
            raise CommandFailed(f"{problem_text(exc.problem)}\n{self._server.log_end()}") from exc
        except CommandFailed as exc:
            raise CommandFailed(f"{exc.text}\n{self._server.log_end()}") from exc
        result: dict[str, Any] = answer["results"][0]
        if show and result["columns"]:
            self._stage.result(result, leave_out)
        elif show and result["message"]:
            self._stage.say(f"  {result['message']}", "dim")
        return result


def _go_on(stage: Stage, data_dir: Path, *, kept: bool, guarded: bool) -> None:
    if stage.failed:
        stage.scene(f"{len(stage.failed)} checks FAILED")
        for text in stage.failed:
            stage.say(text, "red")
        return
    where = f" --data-dir {data_dir}" if kept else ""
    stage.scene("All checks held. How to go on")
    if not kept:
        stage.say("The demo's data is gone; --keep keeps it.", "dim")
    auth = " --auth on" if guarded else ""
    for command, purpose in (
        *([(f"kalam user reset-password admin{where}", "a password of your own")] if guarded and kept else []),
        (f"kalam serve{where}{auth}", "a server of your own"),
        *([(f"kalam login{where}", "and who you are")] if guarded else []),
        (f'kalam sql{where} "SHOW NAMESPACES"', "SQL, as a table, JSON, NDJSON or CSV"),
        (f"kalam insert{where} ns.table rows.ndjson", "rows from a file"),
        *([(f"kalam tail{where} ns.table", "every change of it, as it happens")] if guarded else []),
        *([] if guarded else [("nats sub 'kalam.stream.>'", "or subscribe with any NATS client, in any language")]),
    ):
        stage.say(command, "green")
        stage.say(f"  {purpose}", "dim")


@contextlib.contextmanager
def _home(data_dir: Path | None, keep: bool) -> Iterator[Path]:
    if data_dir is not None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise CommandFailed(f"error: cannot use {data_dir} as a data directory: {exc.strerror}") from exc
        yield data_dir
        return
    home = Path(tempfile.mkdtemp(prefix="kalam-demo-"))
    try:
        yield home
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def _log(home: Path) -> Path:
    return home / "demo-server.log"


def _shortened(statement: str) -> str:
    """A CREATE TABLE without most of its columns."""
    before, cut, rest = statement.partition("\n  updated TIMESTAMP")
    return before + " …" + rest[rest.index("depth_km DOUBLE") + len("depth_km DOUBLE") :] if cut else statement


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
