"""What a CREATE TABLE says of a stream that others made: which it is, how it is written, where in it values are."""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec


class Place(enum.StrEnum):
    """Where in a message the value of a column is that is not a member of the column's name."""

    TOKEN = "TOKEN"  # noqa: S105 - of a subject
    HEADER = "HEADER"
    PATH = "PATH"


class ColumnSource(msgspec.Struct, frozen=True):
    """``FROM TOKEN n`` (counted from 1), ``FROM HEADER 'name'`` or ``FROM PATH 'a.b[0]'``."""

    place: Place
    at: int | str

    def __str__(self) -> str:
        at = self.at if isinstance(self.at, int) else "'" + self.at.replace("'", "''") + "'"
        return f"FROM {self.place} {at}"


class Payload(enum.StrEnum):
    """How others write the payloads of a foreign stream."""

    JSON = "json"
    MSGPACK = "msgpack"
    TEXT = "text"
    CSV = "csv"
    RAW = "raw"


class Invalid(enum.StrEnum):
    """What becomes of a message that does not decode: it is left out, or shown with NULLs."""

    SKIP = "skip"
    NULL = "null"


BUCKET_PREFIX = "KV_"
"""What the stream of a key-value bucket is called, before the bucket's name."""


class Over(msgspec.Struct, frozen=True):
    """The stream that a foreign table reads: its name, the subjects of it that count, and its JetStream domain.

    ``bucket`` is the name of the key-value bucket whose stream it is, where the table is over that.
    """

    stream: str = ""
    subject: str | None = None
    domain: str | None = None
    bucket: str | None = None

    @classmethod
    def of_bucket(cls, bucket: str, domain: str | None = None) -> Over:
        """What a table over a bucket reads."""
        return cls(BUCKET_PREFIX + bucket, domain=domain, bucket=bucket)

    @property
    def called(self) -> str:
        """What it is, in words."""
        return f"stream {self.stream}" if self.bucket is None else f"bucket {self.bucket}"

    def __str__(self) -> str:
        parts = [("OVER STREAM", self.stream), ("SUBJECT", self.subject), ("DOMAIN", self.domain)]
        if self.bucket is not None:
            parts[0] = ("OVER BUCKET", self.bucket)
        return " ".join("{} '{}'".format(word, name.replace("'", "''")) for word, name in parts if name is not None)


class ForeignOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a table over a foreign stream."""

    over: Over = Over()
    payload: Payload = Payload.JSON
    invalid: Invalid = Invalid.SKIP

    subject_key: ClassVar[str | None] = None
    bigint_as_text: ClassVar[bool] = False
