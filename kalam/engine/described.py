"""What a text asks for and gives, without running it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import pyarrow as pa

from kalam.engine.descriptions import (
    COLUMN_FIELDS,
    CREATED_FIELDS,
    DESCRIBED_FIELDS,
    HISTORY_FIELDS,
    NAMESPACES_FIELDS,
    STATS_FIELDS,
    TABLES_FIELDS,
)
from kalam.engine.foreign import STREAM_FIELDS, STREAMS
from kalam.engine.grants import GRANTS_FIELDS
from kalam.engine.lake import LAKE_FIELDS
from kalam.engine.live import SUBSCRIBED_FIELDS
from kalam.engine.policies import FIELDS as POLICIES_FIELDS
from kalam.engine.upkeep_results import CHECK_FIELDS, COMPACT_FIELDS, FLUSH_FIELDS
from kalam.engine.users import ROLES_FIELDS, TOKEN_FIELDS, TOKENS_FIELDS, USERS_FIELDS
from kalam.query.results import sql_type
from kalam.query.system import JOBS, LIVE_QUERIES, QUERIES, SESSIONS, VIEWS, Fields
from kalam.sql.access import statements as access
from kalam.sql.text import statements as sql
from kalam.sql.text.view_statements import ShowViews

ANSWERS: Mapping[type[sql.Statement], Fields] = {
    sql.ShowNamespaces: NAMESPACES_FIELDS,
    sql.ShowTables: TABLES_FIELDS,
    sql.DescribeTable: DESCRIBED_FIELDS,
    sql.ShowColumns: COLUMN_FIELDS,
    sql.ShowStats: STATS_FIELDS,
    sql.ShowCreateTable: CREATED_FIELDS,
    sql.ShowStreams: STREAMS,
    sql.DescribeStream: STREAM_FIELDS,
    sql.ShowJobs: JOBS,
    sql.ShowQueries: QUERIES,
    sql.ShowLiveQueries: LIVE_QUERIES,
    sql.ShowLake: LAKE_FIELDS,
    sql.RefreshLake: LAKE_FIELDS,
    sql.FlushTable: FLUSH_FIELDS,
    sql.FlushAllTables: FLUSH_FIELDS,
    sql.CompactTable: COMPACT_FIELDS,
    sql.CheckTable: CHECK_FIELDS,
    ShowViews: VIEWS,
    sql.Subscribe: SUBSCRIBED_FIELDS,
    access.ShowUsers: USERS_FIELDS,
    access.ShowRoles: ROLES_FIELDS,
    access.ShowGrants: GRANTS_FIELDS,
    access.ShowPolicies: POLICIES_FIELDS,
    access.ShowTokens: TOKENS_FIELDS,
    access.ShowSessions: SESSIONS,
    access.CreateToken: TOKEN_FIELDS,
}
"""The columns of the answers that are the same whatever is asked of them."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement asks for and gives.

    ``parameters`` are ``$1 …`` with the types that they are bound as, ``fields`` the columns of the answer, None where
    it has no rows. ``kind`` is the statement in words (``INSERT``, ``CREATE TABLE``), ``writes`` whether it changes
    anything, ``many`` whether ``execute_many`` takes it.
    """

    parameters: tuple[pa.Field, ...]
    fields: pa.Schema | None
    kind: str
    writes: bool
    many: bool = False

    def as_json(self) -> bytes:
        """The description as the doors tell it that speak JSON."""
        told = {
            "kind": self.kind,
            "parameters": _told(self.parameters),
            "columns": None if self.fields is None else _told(self.fields),
            "writes": self.writes,
            "many": self.many,
        }
        return msgspec.json.encode(told)


def _told(fields: Iterable[pa.Field]) -> list[dict[str, str]]:
    return [{"name": field.name, "type": sql_type(field)} for field in fields]


def fixed_fields(statement: sql.Statement) -> pa.Schema | None:
    """The columns of an answer that are always the same; None for a statement without any."""
    fields = ANSWERS.get(type(statement))
    if isinstance(statement, sql.DescribeTable) and statement.history:
        fields = HISTORY_FIELDS
    return None if fields is None else pa.schema(list(fields))
