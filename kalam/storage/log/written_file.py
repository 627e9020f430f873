"""A segment's file as a worker process has written it, before anything names it."""

from __future__ import annotations

import msgspec


class WrittenFile(msgspec.Struct, kw_only=True):
    """A file as it lies there: ``temporary`` is to be renamed to ``path``, both relative to the folder.

    ``checksum`` is the CRC-32 of its bytes.
    """

    temporary: str
    path: str
    deleted: bool
    row_count: int
    byte_count: int
    checksum: int
    min_seq: int
    max_seq: int
    min_key: bytes
    max_key: bytes
    key_filter: bytes
