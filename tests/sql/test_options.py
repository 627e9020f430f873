from __future__ import annotations

from typing import Any

import pytest

from kalam.errors import InvalidOption, Unsupported
from kalam.schema import (
    Column,
    Compression,
    DataType,
    PayloadFormat,
    StoredOptions,
    StreamOptions,
    StreamStorage,
    TableKind,
    TypeName,
)
from kalam.sql import describe_options, options_sql, table_options

STREAM, SHARED, USER = TableKind.STREAM, TableKind.SHARED, TableKind.USER
COLUMNS = (Column(column_id=1, name="device", type=DataType(name=TypeName.TEXT)),)


def read(kind: TableKind, **raw: Any) -> StreamOptions | StoredOptions:
    return table_options(kind, raw, COLUMNS)


def test_the_defaults_are_those_of_the_language() -> None:
    assert read(STREAM) == StreamOptions()
    assert read(SHARED) == read(USER) == StoredOptions()


@pytest.mark.parametrize(
    ("value", "retention_s"),
    [("10s", 10), ("5m", 300), ("1h", 3_600), ("7d", 604_800), ("7D", 604_800), (60, 60), ("60", 60), (1, 1)],
)
def test_retention_is_a_time(value: object, retention_s: int) -> None:
    assert read(STREAM, RETENTION=value) == StreamOptions(retention_s=retention_s)
    assert read(STREAM, TTL_SECONDS=value) == StreamOptions(retention_s=retention_s)


def test_retention_and_its_alias_exclude_each_other() -> None:
    with pytest.raises(InvalidOption, match=r"RETENTION .*TTL_SECONDS.* twice"):
        read(STREAM, RETENTION=1, TTL_SECONDS=1)


@pytest.mark.parametrize(
    ("kind", "raw", "fields"),
    [
        (STREAM, {"MAX_BUFFER": 100_000_000}, {"max_buffer_rows": 100_000_000}),
        (STREAM, {"max_buffer": "1"}, {"max_buffer_rows": 1}),
        (STREAM, {"EPHEMERAL": True}, {"ephemeral": True, "storage": StreamStorage.MEMORY}),
        (STREAM, {"EPHEMERAL": "True", "STORAGE": "file"}, {"ephemeral": True}),
        (STREAM, {"EPHEMERAL": "false"}, {}),
        (STREAM, {"STORAGE": "MEMORY"}, {"storage": StreamStorage.MEMORY}),
        (STREAM, {"REPLICAS": 3}, {"replicas": 3}),
        (STREAM, {"FORMAT": "msgpack"}, {"format": PayloadFormat.MSGPACK}),
        (STREAM, {"SUBJECT_KEY": "device"}, {"subject_key": "device"}),
        (STREAM, {"BIGINT_AS_TEXT": "TRUE"}, {"bigint_as_text": True}),
        (SHARED, {"BIGINT_AS_TEXT": True}, {"bigint_as_text": True}),
        (SHARED, {"FORMAT": "msgpack"}, {"format": PayloadFormat.MSGPACK}),
        (USER, {"SUBJECT_KEY": "device"}, {"subject_key": "device"}),
        (SHARED, {"FLUSH_POLICY": "rows:10000000"}, {"flush_rows": 10_000_000, "flush_interval_s": None}),
        (SHARED, {"FLUSH_POLICY": "interval:86400"}, {"flush_rows": None, "flush_interval_s": 86_400}),
        (USER, {"FLUSH_POLICY": "rows:5, interval:6"}, {"flush_rows": 5, "flush_interval_s": 6}),
        (SHARED, {"LOCATION": "s3://bucket/t"}, {"location": "s3://bucket/t"}),
        (USER, {"LOCATION": "/data/${user_id}/t"}, {"location": "/data/${user_id}/t"}),
        (SHARED, {"DELETED_RETENTION": "48h"}, {"deleted_retention_s": 172_800}),
        (SHARED, {"DELETED_RETENTION": 48}, {"deleted_retention_s": 172_800}),
        (SHARED, {"DELETED_RETENTION": "48"}, {"deleted_retention_s": 172_800}),
        (SHARED, {"DELETED_RETENTION": "Off"}, {"deleted_retention_s": None}),
        (SHARED, {"COMPRESSION": "snappy"}, {"compression": Compression.SNAPPY}),
    ],
)
def test_an_option_sets_its_fields(kind: TableKind, raw: dict[str, Any], fields: dict[str, Any]) -> None:
    expected = StreamOptions(**fields) if kind is STREAM else StoredOptions(**fields)
    assert read(kind, **raw) == expected


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (
            STREAM,
            "RETENTION",
            [0, -1, "0s", "1w", "s", "", 1.5, True, None, "10 s", "99999999d", "\N{FULLWIDTH DIGIT ONE}s"],
        ),
        (STREAM, "MAX_BUFFER", [0, -1, 100_000_001, "x", 1.5, True]),
        (STREAM, "EPHEMERAL", [0, 1, "yes", None]),
        (SHARED, "BIGINT_AS_TEXT", [0, 1, "yes", None]),
        (STREAM, "SUBJECT_KEY", ["nope", "DEVICE", 1, True]),
        (STREAM, "STORAGE", ["disk", 1]),
        (STREAM, "REPLICAS", [0, 2, 4, 7, "x", True]),
        (SHARED, "FORMAT", ["avro", 1]),
        (
            SHARED,
            "FLUSH_POLICY",
            [
                *(
                    "",
                    "rows",
                    "rows:0",
                    "rows:10000001",
                    "interval:0",
                    "interval:86401",
                    "rows:1,rows:2",
                    "interval:1,rows:1",
                ),
                *("rows:-1", "rows:1,", 5, "time:5", "rows:1.5"),
            ],
        ),
        (SHARED, "LOCATION", ["", "  ", 5, "/a/${user_id}", "/a/${other}", "/a\x00b"]),
        (USER, "LOCATION", ["/a", "/a/${user}", "/a/${user_id}/${x}"]),
        (SHARED, "DELETED_RETENTION", ["10s", "5m", 0, "0d", "never", False]),
        (SHARED, "COMPRESSION", ["gzip", 1]),
    ],
)
def test_a_value_out_of_bounds_names_the_option_and_what_is_allowed(
    kind: TableKind, name: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(InvalidOption, match=name):
            read(kind, **{name: value})


def test_an_unknown_option_is_told_which_there_are() -> None:
    with pytest.raises(InvalidOption, match="no option RETENTON; a STREAM table has the options RETENTION") as caught:
        read(STREAM, RETENTON=1)
    assert caught.value.fields["hint"] == "did you mean RETENTION?"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((SHARED, name) for name in ("RETENTION", "TTL_SECONDS", "MAX_BUFFER", "EPHEMERAL", "STORAGE", "REPLICAS")),
        *((STREAM, name) for name in ("FLUSH_POLICY", "LOCATION", "DELETED_RETENTION", "COMPRESSION")),
    ],
)
def test_an_option_of_another_kind_is_refused(kind: TableKind, name: str) -> None:
    with pytest.raises(InvalidOption, match="belongs to"):
        read(kind, **{name: 1})


def test_an_alteration_changes_only_what_it_names() -> None:
    current = StreamOptions(retention_s=5, max_buffer_rows=7, subject_key="device")
    altered = table_options(STREAM, {"RETENTION": "10s", "EPHEMERAL": True}, COLUMNS, current=current)
    assert altered == StreamOptions(retention_s=10, max_buffer_rows=7, subject_key="device", ephemeral=True)


def test_storage_cannot_be_altered() -> None:
    with pytest.raises(Unsupported, match="STORAGE"):
        table_options(STREAM, {"STORAGE": "memory"}, COLUMNS, current=StreamOptions())


def test_every_option_is_described() -> None:
    assert describe_options(StreamOptions(retention_s=10, subject_key="device")) == [
        ("retention", "10 seconds"),
        ("max_buffer", "10000 rows"),
        ("ephemeral", "false"),
        ("subject_key", "device"),
        ("storage", "file"),
        ("replicas", "1"),
        ("format", "json"),
        ("bigint_as_text", "false"),
    ]
    assert describe_options(StoredOptions()) == [
        ("flush_policy", "rows:100000,interval:300"),
        ("location", "default"),
        ("deleted_retention", "604800 seconds"),
        ("compression", "zstd"),
        ("subject_key", "none"),
        ("format", "json"),
        ("bigint_as_text", "false"),
        ("iceberg", "default"),
    ]
    assert ("retention", "none") in describe_options(StreamOptions())
    assert ("deleted_retention", "off") in describe_options(StoredOptions(deleted_retention_s=None))


def test_options_are_written_as_they_are_read() -> None:
    assert options_sql(StreamOptions(retention_s=3_600)) == (
        "RETENTION = '1h', MAX_BUFFER = 10000, EPHEMERAL = false, STORAGE = 'file', REPLICAS = 1, FORMAT = 'json', "
        "BIGINT_AS_TEXT = false"
    )
    assert options_sql(StoredOptions(flush_rows=None, location="/it's", subject_key="device")) == (
        "FLUSH_POLICY = 'interval:300', LOCATION = '/it''s', DELETED_RETENTION = '7d', COMPRESSION = 'zstd', "
        "SUBJECT_KEY = 'device', FORMAT = 'json', BIGINT_AS_TEXT = false"
    )
