"""The rows that policies leave, set aside before the query that reads them is planned.

No optimizer can move an expression of the query before the policies, for they are asked in a query of their own, and
what the user's text reads is what that has found. It is written into a file without a name that is mapped, so it is no
memory of the query; of the columns it has those that the text names.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

import pyarrow as pa
from datafusion import DataFrame

from kalam.errors import Internal, InvalidValue, KalamError, TooLarge
from kalam.query.wire import Bound
from kalam.query.worker.faults import explain
from kalam.query.worker.frames import Frame

ASIDE_BYTES_MAX = 16 << 30
_COUNTED = re.compile(r"\bcount\s*\(\s*\*\s*\)", re.IGNORECASE)
_SELECTS, _SOURCES = re.compile(r"\bselect\b", re.IGNORECASE), re.compile(r"\bfrom\b", re.IGNORECASE)


def guarded(bound: Bound, columns: Sequence[str]) -> str:
    """The query for these columns of the rows that the policies leave."""
    shown = ", ".join(map(_quoted, columns))
    source = f"{_quoted(bound.namespace)}.{_quoted(bound.table)}"
    return f"SELECT {shown} FROM {source} WHERE ({bound.guard}\n)"  # noqa: S608 - a policy, which was read and planned


def named_columns(text: str, columns: Sequence[str]) -> list[str]:
    """The columns that a text may name: all where it says ``*``, or says less than that plainly; never none."""
    told = _COUNTED.sub("", text)
    if "*" in told or "natural" in told.lower() or len(_SOURCES.findall(told)) > len(_SELECTS.findall(told)):
        return list(columns)
    folded = told.lower()
    return [name for name in columns if '"' in name or name.lower() in folded] or [columns[0]]


def set_aside(bound: Bound, plan: Callable[[], DataFrame], frame: Frame, columns: Sequence[str]) -> pa.Table:
    """The rows of a plan, with the columns' own types; what is told of its failure tells nothing of a row."""
    schema = pa.schema([frame.schema.field(name) for name in columns])
    try:
        with tempfile.TemporaryFile() as file:
            _write(plan(), schema, file)
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
    except KalamError:
        raise
    except BaseException as exc:
        error = explain(exc)
        if isinstance(error, (Internal, TooLarge)):
            raise
        detail = f"a policy of table {bound.namespace}.{bound.table} fails on one of the rows"
        raise InvalidValue(detail, hint="its owner has to mend it") from None


def _write(plan: DataFrame, schema: pa.Schema, file: BinaryIO) -> None:
    size = 0
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as writer:
        for found in plan.execute_stream():
            batch = found.to_pyarrow()
            size += batch.nbytes
            if size > ASIDE_BYTES_MAX:
                raise TooLarge(f"the rows that the policies leave have more than {ASIDE_BYTES_MAX} bytes")
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    file.flush()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
