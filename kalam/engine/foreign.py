"""SHOW STREAMS and DESCRIBE STREAM: what others keep in the broker, and the table that could be made over it."""

from __future__ import annotations

import re

import pyarrow as pa
from msgspec.structs import replace

from kalam.engine.session import Session
from kalam.errors import NotFound, Unsupported
from kalam.foreign import BUCKET_PREFIX, Over
from kalam.names import TableName
from kalam.query.results import Result, list_result
from kalam.rows.lone_values import timestamp_text
from kalam.rows.types import TIMESTAMP_ARROW
from kalam.sql.tables.proposal import Proposal, propose
from kalam.sql.text.statements import DescribeStream, ShowStreams
from kalam.storage.log.catalogue import Catalogue
from kalam.tables.foreign.port import ForeignState
from kalam.tables.foreign.sampling import sample
from kalam.tables.foreign.tables import ForeignTables
from kalam.threads import Purpose, in_thread

TEXT, COUNT = pa.string(), pa.int64()
STREAMS = (
    ("name", TEXT),
    ("kind", TEXT),
    ("subjects", TEXT),
    ("messages", COUNT),
    ("bytes", COUNT),
    ("oldest", TIMESTAMP_ARROW),
    ("newest", TIMESTAMP_ARROW),
    ("retention", TEXT),
    ("storage", TEXT),
    ("copy_of", TEXT),
    ("tables", TEXT),
)
STREAM_FIELDS = (("section", TEXT), ("name", TEXT), ("value", TEXT), ("description", TEXT))
PROPOSALS_MAX = 10
"""So many kinds of messages are each proposed a table for."""
Line = tuple[str, str, str, str]


class ForeignStatements:
    """Carries out the statements on streams of others."""

    def __init__(self, catalogue: Catalogue, tables: ForeignTables) -> None:
        self._catalogue, self._tables = catalogue, tables

    async def answer(self, statement: ShowStreams | DescribeStream, session: Session) -> Result:
        """The answer to one of them."""
        if isinstance(statement, ShowStreams):
            return await self._show()
        return await self._describe(statement, session)

    async def _describe(self, statement: DescribeStream, session: Session) -> Result:
        over, state = await self._found(statement)
        messages = await sample(self._tables.port, over, state, statement.sample)
        proposals = await in_thread(Purpose.ROWS, propose, messages, of_bucket=over.bucket is not None)
        looked_at = ("sample", "messages", str(len(messages)), "looked at: the oldest and the newest")
        rows = [*_state_rows(state), looked_at]
        for number, proposal in enumerate(proposals[:PROPOSALS_MAX], 1):
            name = _table_name(over.bucket or state.name)
            table = TableName(session.namespace or "ns", name + (f"_{number}" if number > 1 else ""))
            rows += _proposal_rows(proposal, table, over)
        rows += [
            ("subject", proposal.subject, str(proposal.messages), f"{proposal.messages} messages of the sample")
            for proposal in proposals[PROPOSALS_MAX:]
        ]
        return list_result(STREAM_FIELDS, rows)

    async def _found(self, statement: DescribeStream) -> tuple[Over, ForeignState]:
        """What a name means: a stream, the stream of a bucket, or the bucket itself; and its state."""
        port, over = self._tables.port, Over(statement.stream, domain=statement.domain)
        try:
            state = await port.state(over)
        except NotFound:
            bucket = Over.of_bucket(statement.stream, statement.domain)
            try:
                return bucket, await port.state(bucket)
            except (NotFound, Unsupported):
                pass
            raise
        if state.is_bucket:
            over = Over.of_bucket(state.name.removeprefix(BUCKET_PREFIX), statement.domain)
        return over, state

    async def _show(self) -> Result:
        rows = []
        for state in await self._tables.port.states():
            bucket = state.is_bucket
            rows.append(
                (
                    state.name.removeprefix(BUCKET_PREFIX) if bucket else state.name,
                    "bucket" if bucket else "stream",
                    ", ".join(state.subjects),
                    state.messages,
                    state.bytes,
                    state.first_at,
                    state.last_at,
                    state.retention,
                    state.storage,
                    state.origin,
                    ", ".join(self._reading(Over(state.name))),
                )
            )
        return list_result(STREAMS, rows)

    def _reading(self, over: Over) -> list[str]:
        """The tables over a stream."""
        return sorted(
            str(table.name)
            for table in self._catalogue.tables.values()
            if table.is_foreign and table.foreign_options.over.stream == over.stream
        )


def _state_rows(state: ForeignState) -> list[Line]:
    told = {
        "name": state.name,
        "subjects": ", ".join(state.subjects),
        "messages": str(state.messages),
        "distinct_subjects": str(state.subject_count),
        "bytes": str(state.bytes),
        "oldest": "" if state.first_at is None else timestamp_text(state.first_at),
        "newest": "" if state.last_at is None else timestamp_text(state.last_at),
        "retention": state.retention,
        "storage": state.storage,
        "copy_of": state.origin,
    }
    return [("stream", name, value, f"{name} = {value}") for name, value in told.items()]


def _proposal_rows(proposal: Proposal, table: TableName, over: Over) -> list[Line]:
    subject, count = proposal.subject, proposal.messages
    encodings = ", ".join(f"{payload}: {number}" for payload, number in proposal.encodings.most_common())
    rows = [
        ("subject", subject, str(count), f"{count} messages of the sample"),
        ("encoding", subject, encodings, f"the payloads are {encodings}"),
    ]
    for proposed in proposal.columns:
        column = proposed.column
        text = column.type.declaration + (f" {column.source}" if column.source else "")
        told = f"in {proposed.present} of {count} messages" + (f", {proposed.nulls} NULL" if proposed.nulls else "")
        rows.append(("column", column.name, text, told))
    meant = over if over.bucket is not None else replace(over, subject=subject)
    rows.append(("statement", subject, proposal.statement(table, meant), "what it proposes"))
    return rows


def _table_name(stream: str) -> str:
    """A name that a table may have, after that of a stream."""
    clean = re.sub(r"[^a-z0-9]+", "_", stream.lower()).strip("_")[:58]
    return clean if clean[:1].isalpha() else f"t_{clean}".rstrip("_")
