"""Some messages of a foreign stream, to see what lies in it: the oldest, the newest, and the last of each subject.

The oldest alone would tell what publishers wrote before their last change, and the newest alone what is frequent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from kalam.foreign import Over
from kalam.rows.foreign.messages import ForeignMessages
from kalam.sql.queries.scan_bounds import ScanBounds
from kalam.tables.foreign.port import ForeignPort, ForeignState

SUBJECTS_MAX = 1_000
NO_TABLE = 0
"""What a consumer is called after that reads for no table."""


async def sample(port: ForeignPort, over: Over, state: ForeignState, count: int) -> ForeignMessages:
    """About ``count`` messages, in the order of the stream."""
    if not state.messages:
        return ForeignMessages([], [], [], [], [])
    half = max(1, count // 2)
    oldest = ScanBounds(after_seq=state.first_seq - 1)
    newest = ScanBounds(after_seq=max(state.first_seq - 1, state.last_seq - half), upto_seq=state.last_seq)
    parts = [
        await _first(port.read(over, NO_TABLE, oldest), half),
        await _first(port.read(over, NO_TABLE, newest), half),
    ]
    if state.subject_count <= SUBJECTS_MAX:
        parts.append(await _first(port.last_of_subjects(over, NO_TABLE, SUBJECTS_MAX), SUBJECTS_MAX))
    places = {seq: (part, place) for part in parts for place, seq in enumerate(part.seqs)}
    chosen = [places[seq] for seq in sorted(places)]
    return ForeignMessages(
        *([getattr(part, name)[place] for part, place in chosen] for name in ForeignMessages.__struct_fields__)
    )


async def _first(reading: AsyncIterator[ForeignMessages], count: int) -> ForeignMessages:
    taken = ForeignMessages([], [], [], [], [])
    async with aclosing(reading) as parts:  # type: ignore[type-var] # a generator
        async for part in parts:
            taken = taken.followed_by(part)
            if len(taken) >= count:
                return taken.part(0, count)
    return taken
