"""All that a column type is, in one value.

A *row* holds one Python value for each column, in the form that its type says; everything that comes in is brought to
this form once, and everything that goes out starts from it. None is NULL, and no function here is given one unless it
takes a whole column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa

from kalam.rows.values import Fix, Values
from kalam.schema import DataType, TypeName

Show = Callable[[Values], Values]


class Decoding(msgspec.Struct, frozen=True):
    """How a message is decoded.

    ``native`` is set for Python objects (from SQL) and for msgpack with a BLOB, where bytes and text both may come;
    ``bigint_texts`` where any text may stand for a BIGINT.
    """

    native: bool = False
    bigint_texts: bool = False


class PostgreSQLType(msgspec.Struct, frozen=True):
    """A type as PostgreSQL's clients know it: its name and its oid in ``pg_type``."""

    name: str
    oid: int


class ColumnType(msgspec.Struct, frozen=True, kw_only=True):
    """One type. What is None need not be done.

    ``words``: the names that SQL knows it by, PostgreSQL's among them. ``literal``: the word before a text that is one
    (``DATE '…'``). ``postgresql``: what it is called there. ``bits``: of an integer. ``is_key``: a PRIMARY KEY may have
    it.

    *In.* ``decoded``: the msgspec type of a value in a message, ``Any`` where ``fix`` checks it. ``fix``: from what the
    decoder gave to the row's form, a column at a time; raises BadValue. ``lossless``, ``lossless_fix``: the same for a
    sender who asked for numbers in other forms; the type may be asked for the digits as they came (``raw``).
    ``text_fix``: where texts stand for it. ``assigned``: what SQL assigns, in a form that ``decoded`` takes; raises
    ValueError and its like. ``from_arrow``: a column of Arrow likewise, ``own_arrow`` whether that is of the type's own
    kind, ``arrow_as_is`` whether Arrow's Python values are what a decoder gives. ``whole``: a column of Arrow as it is
    kept, where no value of it has to be looked at by Python; None from it where one has, or does not fit.

    *Kept.* ``arrow``: the Arrow type that holds it exactly, of which Parquet's follows. ``stored``: the msgspec type
    that reads it back from msgpack. ``default``: a literal of DEFAULT as JSON carries it; raises ValueError.

    *Out.* ``in_json``, ``in_msgpack``: what a column needs before msgspec writes it; ``as_text`` for whom its numbers
    are too long. ``from_event``: from what an event shows. ``compared``: how SQL for DataFusion writes a value that is
    compared with a column, so that it is read as an INSERT reads it; None from it means as it stands.
    """

    name: TypeName
    words: tuple[str, ...]
    postgresql: PostgreSQLType
    literal: str | None = None
    bits: int | None = None
    is_key: bool = False

    decoded: Callable[[DataType, Decoding], Any]
    fix: Callable[[DataType], Fix] | None = None
    lossless: Callable[[bool], Any] | None = None
    lossless_fix: Callable[[DataType], Fix] | None = None
    text_fix: Fix | None = None
    assigned: Callable[[Any], Any]
    from_arrow: Callable[[pa.ChunkedArray, DataType], list[Any]]
    own_arrow: Callable[[pa.DataType], bool]
    arrow_as_is: bool = False
    whole: Callable[[pa.ChunkedArray, DataType], pa.ChunkedArray | None] | None = None

    arrow: Callable[[DataType], pa.DataType]
    stored: Any = Any
    default: Callable[[Any, DataType], Any]

    in_json: Show | None = None
    in_msgpack: Show | None = None
    as_text: Show | None = None
    from_event: Callable[[Any], Any] | None = None
    compared: Callable[[Any, DataType], str | None] | None = None
