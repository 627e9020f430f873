"""What FLUSH, COMPACT and CHECK answer."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from msgspec.structs import replace

from kalam.errors import Internal, KalamError
from kalam.names import numbered
from kalam.query.results import Result, list_result
from kalam.schema import Table
from kalam.storage.log.troubles import reason_of
from kalam.storage.work.compaction import Compacted
from kalam.storage.work.flush import Flushed
from kalam.storage.work.table_check import CheckedSegment

FLUSH_FIELDS = (
    ("job_id", pa.string()),
    ("table", pa.string()),
    ("rows_flushed", pa.int64()),
    ("segments", pa.int64()),
    ("bytes", pa.int64()),
    ("duration_ms", pa.float64()),
)
COMPACT_FIELDS = (
    ("job_id", pa.string()),
    ("table", pa.string()),
    ("segments_before", pa.int64()),
    ("segments_after", pa.int64()),
    ("rows", pa.int64()),
    ("rows_removed", pa.int64()),
    ("overrides_forgotten", pa.int64()),
    ("bytes", pa.int64()),
    ("duration_ms", pa.float64()),
)
CHECK_FIELDS = (
    ("job_id", pa.string()),
    ("segment", pa.string()),
    ("user_id", pa.string()),
    ("rows", pa.int64()),
    ("bytes", pa.int64()),
    ("ok", pa.bool_()),
    ("fault", pa.string()),
)


def flush_result(done: Sequence[tuple[Table, Flushed]]) -> Result:
    """A row for each table of which something was flushed."""
    rows = [
        (each.job_id, str(table.name), each.rows_flushed, each.segments, each.bytes, each.duration_ms)
        for table, each in done
        if each.job_id
    ]
    result = list_result(FLUSH_FIELDS, rows)
    return result if rows else replace(result, message="nothing to flush: all rows are in Parquet files")


def not_flushed(failures: Sequence[tuple[Table, Exception]], others: int) -> KalamError:
    """The error of a FLUSH ALL TABLES: of the kind of the first one, and naming every table that failed."""
    first = failures[0][1]
    kind = type(first) if isinstance(first, KalamError) else Internal
    listed = "; ".join(f"{table.name}: {reason_of(exc)}" for table, exc in failures[:20])
    more = f" and {len(failures) - 20} more" if len(failures) > 20 else ""
    tables = [str(table.name) for table, _ in failures]
    rest = f"the {numbered(others, 'other')} {'was' if others == 1 else 'were'}"
    return kind(f"{numbered(len(failures), 'table')} could not be flushed, {rest}: {listed}{more}", tables=tables)


def compact_result(table: Table, done: Compacted) -> Result:
    """One row, or none and a message where nothing was to be done."""
    values = {"job_id": done.job_id, "table": str(table.name), **done.result(), "duration_ms": done.duration_ms}
    if not done.job_id:
        return replace(list_result(COMPACT_FIELDS, []), message=f"nothing to compact in {table.name}")
    return list_result(COMPACT_FIELDS, [tuple(values[name] for name, _ in COMPACT_FIELDS)])


def check_result(job_id: str, found: Sequence[CheckedSegment]) -> Result:
    """A row for each segment, with what is wrong with it."""
    rows = [
        (job_id, one.segment.path, one.owner or None, one.segment.row_count, one.segment.byte_count, *_fault(one))
        for one in found
    ]
    return list_result(CHECK_FIELDS, rows)


def _fault(checked: CheckedSegment) -> tuple[bool, str | None]:
    return checked.fault is None, checked.fault
