"""What the demo is about: the earthquakes, the tables that they go into, and the questions."""

from __future__ import annotations

import gzip
import importlib.resources
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

NAMESPACE: Final = "quakes"
LIVE, EVENTS, NEARBY = "quakes.live", "quakes.events", "quakes.nearby"
FEED_USER: Final = "feed"
READERS: Final = {"ada": ("California", frozenset({"ci", "nc"})), "ben": ("Alaska", frozenset({"ak"}))}
STRONG: Final = 5.3  # what the subscriber shows of the stream

COLUMNS: Final = """
  id TEXT {key}, time TIMESTAMP NOT NULL, mag DOUBLE, place TEXT,
  updated TIMESTAMP, mag_type TEXT, kind TEXT, status TEXT, alert TEXT, tsunami BOOLEAN, sig INT, net TEXT, felt INT,
  cdi DOUBLE, mmi DOUBLE, nst INT, dmin DOUBLE, rms DOUBLE, gap DOUBLE, longitude DOUBLE, latitude DOUBLE,
  depth_km DOUBLE"""
STREAM_OPTIONS: Final = "WITH (RETENTION = '1h', MAX_BUFFER = 5000, SUBJECT_KEY = 'net')"
CREATE_TABLES: Final = {
    "everybody's ticker: kept for an hour, never written to Parquet": (
        f"CREATE STREAM TABLE {LIVE} ({COLUMNS.format(key='NOT NULL')})\n{STREAM_OPTIONS}"
    ),
    "the catalogue: one data set for all, its history in Parquet": (
        f"CREATE SHARED TABLE {EVENTS} ({COLUMNS.format(key='PRIMARY KEY')})"
    ),
    "a private copy for each user, which nobody else sees": (
        f"CREATE USER TABLE {NEARBY} (\n  id TEXT PRIMARY KEY, time TIMESTAMP, mag DOUBLE, place TEXT, felt INT)"
    ),
}
STRANGER: Final = "eve"
GRANTS: Final = (
    f"GRANT ALL ON NAMESPACE {NAMESPACE} TO {FEED_USER}",
    f"GRANT ALL ON TABLE {NEARBY} TO PUBLIC",
)
COUNTS: Final = {
    LIVE: "SELECT COUNT(*) FROM quakes.live",
    EVENTS: "SELECT COUNT(*) FROM quakes.events",
    NEARBY: "SELECT COUNT(*) FROM quakes.nearby",
}
STRONGEST: Final = """SELECT mag, place, time FROM quakes.events
WHERE kind = 'earthquake' ORDER BY mag DESC, time LIMIT 5"""
BY_NETWORK: Final = """SELECT net, COUNT(*) AS events, MAX(mag) AS strongest, SUM(felt) AS people_who_felt_it
FROM quakes.events GROUP BY net ORDER BY events DESC LIMIT 6"""
MINE: Final = """SELECT COUNT(*) AS quakes, MAX(mag) AS strongest, SUM(felt) AS people_who_felt_it
FROM quakes.nearby"""
REVIEW: Final = "UPDATE quakes.events SET status = 'reviewed' WHERE status = 'automatic'"
VIEW: Final = "quakes.strongest"
_BY_HOUR: Final = """SELECT net, date_bin(INTERVAL '1 hour', time) AS hour, COUNT(*) AS events, MAX(mag) AS strongest
FROM quakes.events GROUP BY 1, 2"""
CREATE_VIEW: Final = f"CREATE EPHEMERAL MATERIALIZED VIEW {VIEW} WITH (refresh = '0') AS\n{_BY_HOUR}"
VIEW_STATE: Final = "SELECT view_name, state, how FROM system.views"
REVISE: Final = "UPDATE quakes.events SET mag = round(mag + 0.3, 1) WHERE net = 'ak' AND mag >= 3"
REVISED: Final = "ak", 3.0
VIEW_ROWS: Final = "SELECT net, hour, events, strongest FROM quakes.strongest ORDER BY hour, net"
VIEW_AGAIN: Final = f"{_BY_HOUR} ORDER BY hour, net"
BY_STATUS: Final = "SELECT status, COUNT(*) AS events FROM quakes.events GROUP BY status ORDER BY status"


class Quake(msgspec.Struct, frozen=True):
    """One earthquake: its JSON as it will be sent, and what the demo itself needs of it."""

    json: bytes
    time: datetime
    mag: float
    place: str
    net: str
    nearby_json: bytes


def revised_hours(quakes: list[Quake]) -> int:
    """In how many hours the strongest earthquake of a network changes by REVISE."""
    (net, least), hours = REVISED, dict[datetime, float]()
    for quake in quakes:
        if quake.net == net:
            hour = quake.time.replace(minute=0, second=0, microsecond=0)
            hours[hour] = max(quake.mag, hours.get(hour, quake.mag))
    return sum(strongest >= least for strongest in hours.values())


def load_quakes() -> list[Quake]:
    """The week of earthquakes, in the order of their time."""
    packed = importlib.resources.files("kalam").joinpath("demo_data", "earthquakes.ndjson.gz").read_bytes()
    return [_quake(line, msgspec.json.decode(line)) for line in gzip.decompress(packed).splitlines()]


def quake_of_event(payload: bytes) -> Quake:
    """The earthquake that a message of the STREAM table carries."""
    return _quake(payload, msgspec.json.decode(payload))


def _quake(line: bytes, row: dict[str, Any]) -> Quake:
    nearby = {name: row[name] for name in ("id", "time", "mag", "place", "felt")}
    return Quake(line, _instant(row["time"]), row["mag"], row["place"], row["net"], msgspec.json.encode(nearby))


def _instant(value: int | str) -> datetime:
    """Rows are sent with milliseconds since 1970 and come back with RFC 3339 text."""
    return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) else datetime.fromisoformat(value)
