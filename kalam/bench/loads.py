"""Parquet files that become a flushed table: ``kalam insert`` and FLUSH TABLE, beside COPY into PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kalam.bench import process_tree
from kalam.bench.figures import Figure, Unit
from kalam.bench.imports import insert_files
from kalam.bench.pg_client import COPY_DONE, PgClient, copy_data, query
from kalam.bench.real_postgres import NoPostgres, RealPostgres, find_postgres
from kalam.bench.rows import COLUMNS, arrow_table, create_table, row
from kalam.bench.stage import NAMESPACE, Stage
from kalam.cli.failure import CommandFailed

TABLE: Final = f"{NAMESPACE}.loaded"
POLICY: Final = "FLUSH_POLICY = 'rows:100000,interval:300'"
FILES: Final = 5
PART_ROWS: Final = 100_000
PIECE_BYTES: Final = 256 << 10
PEER_USER: Final = "bench"


@dataclass(frozen=True, slots=True)
class Loaded:
    """How long a load took, and what the server's processes spent on it until its changes were published, too."""

    seconds: float
    cpu_s: float


def measure_loads(stage: Stage) -> Iterator[Figure]:
    """Loads of a new table; the best of the rounds counts. Without a PostgreSQL on this machine there is no peer."""
    rows, rounds = stage.sizes.loaded_rows, stage.sizes.rounds
    stage.progress.step(f"stored_tables: writing files of {rows:,} rows to load")
    own: list[Loaded] = []
    bare: list[Loaded] = []
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(RealPostgres(find_postgres(), 1))
        except NoPostgres as exc:
            peer = None
            stage.progress.step(f"stored_tables: loads by Kalam alone, without a PostgreSQL: {exc}")
        files = _write_files(stage.folder("loads"), rows, as_csv=peer is not None)
        for number in range(1, rounds + 1):
            stage.progress.step(f"stored_tables: loading {rows:,} rows, round {number} of {rounds}")
            own.append(_load(stage, files, rows))
            if peer is not None:
                bare.append(_load_bare(peer, [file.with_suffix(".csv") for file in files], rows))
        engine = None if peer is None else f"{peer.version}, COPY of CSV"
    situation = f"{FILES} Parquet files, until all rows are flushed"
    detail = {"loaded_rows": rows}
    yield Figure(
        name="kalam insert, FLUSH TABLE",
        situation=situation,
        unit=Unit.ROWS_PER_S,
        kalam=rows / min(loaded.seconds for loaded in own),
        bare=rows / min(loaded.seconds for loaded in bare) if bare else None,
        bare_engine=engine,
        note=f"{rows:,} rows in {min(loaded.seconds for loaded in own):.1f} s",
        detail=detail,
    )
    yield Figure(
        name="processor time of the server a row, changes published",
        situation=situation,
        unit=Unit.US,
        kalam=min(loaded.cpu_s for loaded in own) / rows * 1e6,
        bare=min(loaded.cpu_s for loaded in bare) / rows * 1e6 if bare else None,
        bare_engine=engine,
        detail=detail,
    )


def _load(stage: Stage, files: Sequence[Path], rows: int) -> Loaded:
    stage.sql.run(create_table("SHARED", TABLE, POLICY))
    before_s, started = process_tree.cpu_s(stage.server.pid), time.perf_counter()
    insert_files(stage, TABLE, files)
    stage.sql.run(f"FLUSH TABLE {TABLE}")  # which may be done already
    seconds = time.perf_counter() - started
    stage.wait_published()
    loaded = Loaded(seconds, process_tree.cpu_s(stage.server.pid) - before_s)
    if stage.sql.count(TABLE) != rows:
        raise CommandFailed(f"error: {stage.sql.count(TABLE):,} of {rows:,} rows were loaded")
    stage.sql.run(f"DROP TABLE {TABLE}")
    return loaded


def _load_bare(peer: RealPostgres, files: Sequence[Path], rows: int) -> Loaded:
    columns = COLUMNS.format(id="BIGINT", key="PRIMARY KEY").replace(" DOUBLE", " DOUBLE PRECISION")
    with PgClient(peer.url, PEER_USER) as client:
        client.run(f"DROP TABLE IF EXISTS loaded; CREATE TABLE loaded ({columns.replace('TIMESTAMP', 'TIMESTAMPTZ')})")
        before_s, started = process_tree.cpu_s(peer.pid), time.perf_counter()
        copied = sum(_copy(client, file) for file in files)
        loaded = Loaded(time.perf_counter() - started, process_tree.cpu_s(peer.pid) - before_s)
    if copied != rows:
        raise CommandFailed(f"error: PostgreSQL has {copied:,} of {rows:,} rows")
    return loaded


def _copy(client: PgClient, file: Path) -> int:
    """COPY a file; how many rows that are."""
    client.send(query("COPY loaded FROM STDIN (FORMAT csv)"))
    client.until(b"G")
    with file.open("rb") as rows:
        while piece := rows.read(PIECE_BYTES):
            client.send(copy_data(piece))
    client.send(COPY_DONE)
    return int(client.until_ready()[1].removeprefix("COPY "))


def _write_files(folder: Path, rows: int, *, as_csv: bool) -> list[Path]:
    """Files of Parquet, and beside each the same rows as CSV."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    schema = arrow_table([row(0)]).schema
    each = -(-rows // FILES)
    files = [folder / f"part-{number}.parquet" for number in range(FILES)]
    for number, file in enumerate(files):
        last = min((number + 1) * each, rows)
        with ExitStack() as stack:
            parquet = stack.enter_context(pq.ParquetWriter(file, schema))
            plain = csv.WriteOptions(include_header=False)
            texts = (
                stack.enter_context(csv.CSVWriter(file.with_suffix(".csv"), schema, write_options=plain))
                if as_csv
                else None
            )
            for first in range(number * each, last, PART_ROWS):
                part = arrow_table([row(place) for place in range(first, min(first + PART_ROWS, last))])
                parquet.write_table(part)
                if texts is not None:
                    texts.write_table(part)
    return files
