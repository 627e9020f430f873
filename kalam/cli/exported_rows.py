"""The rows of a query on their way from the server into files, in bounded memory.

They come as the Arrow stream of ``POST /v1/sql``, which has no bound in rows and whose end says that it is whole; each
piece is written before the next is read. A file takes its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from kalam.cli.export_formats import ExportFormat, RowWriter, row_writer
from kalam.cli.failure import CommandFailed
from kalam.cli.http import stream_sql
from kalam.credentials import Credentials

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"


class Interrupted(Exception):
    """^C came when ``rows`` rows were written."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.rows = rows


@contextlib.contextmanager
def pieces(url: str, sql: str, login: Credentials) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """The schema of a query's rows, and these in pieces; raises Refusal, and CommandFailed where they break off."""
    import pyarrow as pa

    with stream_sql(url, sql, login=login, accept=ARROW_STREAM) as answer:
        with _broken_off():
            stream = pa.ipc.open_stream(answer)
        yield stream.schema, _tables(stream)


def _tables(stream: Any) -> Iterator[pa.Table]:
    import pyarrow as pa

    while True:
        with _broken_off():
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                return
            batch.validate(full=True)
        yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def _broken_off() -> Iterator[None]:
    import http.client

    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, http.client.HTTPException, ConnectionError) as exc:
        raise CommandFailed(
            "error: the server broke the answer off before all rows had come; its log has the reason. Try again."
        ) from exc


def write_rows(
    url: str, sql: str, login: Credentials, target: BinaryIO, form: ExportFormat, note: Callable[[int], None]
) -> int:
    """Write a query's rows; how many there were. ``note`` is told of how many are written.

    Raises Refusal, CommandFailed, Interrupted, and OSError of the target.
    """
    count = 0
    try:
        with pieces(url, sql, login) as (schema, tables):
            writer: RowWriter = row_writer(form, target, schema)
            for rows in tables:
                writer.write_table(rows)
                count += rows.num_rows
                note(count)
            writer.close()
    except KeyboardInterrupt as exc:
        raise Interrupted(count) from exc
    return count


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends well and is gone otherwise; raises CommandFailed."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        with temporary.open("wb") as part:
            yield part
            part.flush()
            os.fsync(part.fileno())
        os.replace(temporary, file)  # noqa: PTH105 - the point is that it replaces
    except OSError as exc:
        raise CommandFailed(f"error: cannot write {file}: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)
