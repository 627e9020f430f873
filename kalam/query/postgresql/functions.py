"""The functions of PostgreSQL that are Python's here, under names that no user writes."""

from __future__ import annotations

import uuid

import pyarrow as pa
from datafusion import SessionContext, udf

from kalam.query.exact.checked import MARK, OutOfRange
from kalam.query.postgresql import json_steps, number_patterns, patterns
from kalam.query.postgresql.float_text import float_texts
from kalam.query.postgresql.similar import similar
from kalam.rows.values import shorten

JSON_MEMBER, JSON_MEMBER_TEXT = "kalam_json_member", "kalam_json_member_text"
JSON_ITEM, JSON_ITEM_TEXT = "kalam_json_item", "kalam_json_item_text"
JSON_PATH, JSON_PATH_TEXT = "kalam_json_path", "kalam_json_path_text"
JSON_VALUE, UUID_VALUE = "kalam_json", "kalam_uuid"
TIME_TEXT, TEXT_TIME, TEXT_DATE = "kalam_to_char", "kalam_to_timestamp", "kalam_to_date"
EPOCH, FLOAT_TEXT = "kalam_epoch", "kalam_float_text"
SIMILAR = "kalam_similar"
EXACT_TEXT, DOUBLE_TEXT, SINGLE_TEXT = "kalam_exact_to_char", "kalam_double_to_char", "kalam_float_to_char"


def _uuids(texts: pa.Array) -> pa.Array:
    return pa.array([None if text is None else _uuid(text) for text in texts.to_pylist()], pa.string())


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OutOfRange(f"{MARK}{shorten(text)} is no UUID;") from None


def register(ctx: SessionContext) -> None:
    """Make the functions known to a context."""
    text, long, time, day = pa.string(), pa.int64(), pa.timestamp("us", "UTC"), pa.date32()
    steps = json_steps.steps
    for name, function, arguments, result in (
        (JSON_MEMBER, steps(json_steps.member, as_text=False), [text, text], text),
        (JSON_MEMBER_TEXT, steps(json_steps.member, as_text=True), [text, text], text),
        (JSON_ITEM, steps(json_steps.item, as_text=False), [text, long], text),
        (JSON_ITEM_TEXT, steps(json_steps.item, as_text=True), [text, long], text),
        (JSON_PATH, steps(json_steps.along, as_text=False), [text, text], text),
        (JSON_PATH_TEXT, steps(json_steps.along, as_text=True), [text, text], text),
        (JSON_VALUE, json_steps.canonical, [text], text),
        (UUID_VALUE, _uuids, [text], text),
        (TIME_TEXT, patterns.shown, [time, text], text),
        (TEXT_TIME, patterns.times, [text, text], time),
        (TEXT_DATE, patterns.days, [text, text], day),
        (EPOCH, patterns.since_epoch, [pa.float64()], time),
        (FLOAT_TEXT, float_texts, [pa.float64()], text),
        (EXACT_TEXT, number_patterns.exact_texts, [text, text], text),
        (DOUBLE_TEXT, number_patterns.double_texts, [pa.float64(), text], text),
        (SINGLE_TEXT, number_patterns.float_texts, [pa.float64(), text], text),
        (SIMILAR, similar, [text, text, text], pa.bool_()),
    ):
        ctx.register_udf(udf(function, arguments, result, "immutable", name=name))
