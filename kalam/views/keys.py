"""The keys of views that no column of their SELECT is: texts, in the column ``_key``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from kalam.rows.keys import as_row
from kalam.schema import VIEW_KEY, Column, DataType, Key, TypeName

SEQ_DIGITS = 12
"""So many digits has a sequence, that keys are in its order."""
_ENCODER = msgspec.json.Encoder(decimal_format="string", enc_hook=str)


def key_column(column_id: int) -> Column:
    """The column of hidden keys."""
    return Column(column_id=column_id, name=VIEW_KEY, type=DataType(name=TypeName.TEXT), nullable=False)


def hidden_key(values: Sequence[Any]) -> str:
    """The key of a row that these values of some columns tell from others; different values give different keys."""
    return _ENCODER.encode([repr(value) if isinstance(value, float) else value for value in values]).decode()


def hidden_keys(keys: Sequence[Sequence[Any]]) -> list[str]:
    """The same for many."""
    if float in set(map(type, chain.from_iterable(keys))):
        return list(map(hidden_key, keys))
    return _ENCODER.encode_lines(keys).decode().split("\n")[:-1]


def key_of_source(key: Key) -> str:
    """The key of the row that was made of a source's row with this key."""
    return key if isinstance(key, str) else hidden_key(as_row(key))


def key_of_event(generation: int, seq: int) -> str:
    """The key of the row that was made of an event."""
    return f"{generation}:{seq:0{SEQ_DIGITS}d}"
