"""What a start finds in JetStream of its data directory, and what it makes of it.

The law: a stream that no table names is left alone and named, unless the catalogue itself says that its table was
dropped. A stream is known by the ids in its metadata, never by its name alone. What is wrong with the stream of one
table is that table's trouble, and no reason not to start.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from kalam_nats.broker.jetstream import JetStream

DATA_ID: Final = "kalam-data-id"
TABLE_ID: Final = "kalam-table-id"
GENERATION: Final = "kalam-generation"
NAMED_AT_ONCE: Final = 20

log = structlog.get_logger(__name__)


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of this data directory: of a table, or with the id 0 one that all tables share."""

    name: str
    table_id: int
    generation: int | None
    configuration: Mapping[str, Any]


class OwnStreams(msgspec.Struct, frozen=True):
    """The streams of a data directory, and the names of those that have no leader to tell whose they are."""

    streams: Sequence[Stream]
    leaderless: Sequence[str]


async def own_streams(jetstream: JetStream, data_id: str, prefix: str) -> OwnStreams:
    """What there is; listed to the end before one is deleted, which would move the pages."""
    found: list[Stream] = []
    leaderless: list[str] = []
    offset = 0
    while True:
        page = await jetstream.request("STREAM.LIST", {"offset": offset})
        streams = page.get("streams") or []
        offset += len(streams)
        found += [own for stream in streams if (own := _own(stream["config"], data_id)) is not None]
        leaderless += [name for name in page.get("missing") or [] if name.startswith(prefix)]
        if not streams or offset >= page.get("total", 0):
            return OwnStreams(found, leaderless)


def _own(configuration: Mapping[str, Any], data_id: str) -> Stream | None:
    metadata = configuration.get("metadata") or {}
    if metadata.get(DATA_ID) != data_id:
        return None
    return Stream(
        name=configuration["name"],
        table_id=_number(metadata.get(TABLE_ID)) or 0,
        generation=_number(metadata.get(GENERATION)),
        configuration=configuration,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def newest_generation(streams: Sequence[Stream]) -> int | None:
    """The newest generation that a stream tells; None if none does."""
    return max((stream.generation for stream in streams if stream.generation is not None), default=None)


def unclaimed(streams: Sequence[Stream], table_ids: Container[int], dropped: Container[int]) -> list[str]:
    """The names of the streams whose tables the catalogue neither has nor has dropped."""
    names = [
        stream.name
        for stream in streams
        if stream.table_id and stream.table_id not in table_ids and stream.table_id not in dropped
    ]
    if names:
        log.warning(
            "streams of tables that kalam.db does not name are left alone; `nats stream rm` removes one",
            count=len(names),
            streams=names[:NAMED_AT_ONCE],
        )
    return names
