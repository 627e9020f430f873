"""What the broker says of a stream of others, as the state of it; and whether one is a key-value bucket."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kalam.errors import Unsupported
from kalam.foreign import Over
from kalam.rows.foreign.messages import nanoseconds
from kalam.tables.foreign.port import ForeignState, Lifetimes
from kalam_nats.streams.foreign_subjects import covers

OBJECTS_PREFIX = "OBJ_"
_UNSEEN = frozenset({"workqueue", "interest"})
"""How streams keep messages that a consumer of ours would change: others' acks would not remove them."""


def state_of(info: Mapping[str, Any], over: Over) -> ForeignState:
    """The state of a stream of which the broker has told; ``over`` says what of it a table reads."""
    config, state = info["config"], info["state"]
    held = bool(state["messages"])
    origins = [config["mirror"]["name"]] if config.get("mirror") else []
    origins += [source["name"] for source in config.get("sources") or []]
    own = not origins and not config.get("subject_transform")
    return ForeignState(
        name=config["name"],
        created=info["created"],
        messages=state["messages"],
        bytes=state["bytes"],
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        first_at=_time(state["first_ts"]) if held else None,
        last_at=_time(state["last_ts"]) if held else None,
        last_text=state["last_ts"],
        subjects=tuple(config.get("subjects") or ()),
        subject_count=state.get("num_subjects", 0),
        retention=config["retention"],
        storage=config["storage"],
        origin=", ".join(origins),
        covered=over.subject is None or (own and covers(over.subject, config.get("subjects") or ())),
        lifetimes=_lifetimes(config),
        now_ns=nanoseconds(info["ts"]) if "ts" in info else time.time_ns(),
    )


def _lifetimes(config: Mapping[str, Any]) -> Lifetimes:
    history = config.get("max_msgs_per_subject", -1)
    return Lifetimes(
        max_age_ns=config.get("max_age") or None,
        by_message=bool(config.get("allow_msg_ttl")),
        leaves_markers=bool(config.get("subject_delete_marker_ttl")),
        history=history if history > 0 else None,
    )


def is_unseen(config: Mapping[str, Any]) -> bool:
    """Whether a consumer of ours would change what a stream keeps."""
    return config["retention"] in _UNSEEN


def check_direct(config: Mapping[str, Any], why: str = "") -> None:
    """Raise Unsupported for a stream that cannot be read unseen; ``why`` it has to be, else its retention says."""
    if config.get("allow_direct"):
        return
    if not why:
        kept = "what its workers take" if config["retention"] == "workqueue" else "what others have acknowledged"
        why = f"has retention {config['retention']}, where a consumer of Kalam's would change {kept}"
    raise Unsupported(
        f"the stream {config['name']} {why}, and without allow_direct it is not read otherwise",
        hint=f"nats stream edit {config['name']} --allow-direct",
    )


def check_bucket(config: Mapping[str, Any]) -> None:
    """Raise Unsupported for a stream that is called like a bucket and is none."""
    if config["retention"] == "limits" and config.get("max_msgs_per_subject", -1) > 0:
        return
    raise Unsupported(
        f"the stream {config['name']} is no key-value bucket: it does not keep the last messages of each key",
        hint=f"OVER STREAM '{config['name']}' reads its messages",
    )


def check_no_objects(bucket: str, streams: Sequence[str]) -> None:
    """Raise Unsupported where a bucket is one of an object store."""
    if OBJECTS_PREFIX + bucket in streams:
        raise Unsupported(f"the bucket {bucket} holds objects, in parts, and no keys with values; it cannot be read")


def _time(text: str) -> datetime:
    """Go's RFC 3339 text, which has up to nine fractional digits."""
    return datetime.fromisoformat(text[:-1][:26]).replace(tzinfo=UTC)
