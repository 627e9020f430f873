"""A source of a table that stands in a query which we write around a user's text."""

from __future__ import annotations

from typing import Final

import msgspec

from kalam.names import TableName
from kalam.query.predicate import Predicate
from kalam.schema import Table
from kalam.tables.kinds import Source

AT_HAND_SUFFIX: Final = "$rows"
"""Behind the name of a table of which a query reads some rows that are at hand."""


class Own(msgspec.Struct, frozen=True):
    """What a query that we write around a user's text reads: a source of a table, under a name, with its alias.

    ``guard`` are the policies that are asked of its rows.
    """

    name: TableName
    table: Table
    source: Source
    alias: str | None = None
    guard: Predicate | None = None
