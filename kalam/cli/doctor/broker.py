"""The broker: version, clock, room, and the streams of this data directory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import nats
from nats import errors as nats_errors
from nats.aio.client import Client

from kalam.cli.doctor.finding import Finding, Level, Patient, size_text
from kalam.outside import broker_options, options_of_kalam
from kalam.storage.log.data_dir import DATABASE
from kalam.storage.log.database import connect
from kalam.storage.log.table_rows import read_tables
from kalam.urls import tls_options

VERSION_MIN = (2, 12)
"""The first release that stores a batch as a whole, which the change feed needs."""
CLOCK_WARN_S, CLOCK_FAIL_S = 2.0, 60.0
ROOM_WARN, ROOM_FAIL = 0.8, 0.95
TIME_S = 5.0
DATA_ID, TABLE_ID = "kalam-data-id", "kalam-table-id"
NAMED = 3
REFUSED = "authorization violation"
OWN = "the server's own, into which no user sees; what it says of itself is below"


def broker(patient: Patient) -> Iterator[Finding]:
    """The broker that the server uses, or that the settings name."""
    options = broker_options(patient.settings)
    if options is not None:
        yield from asyncio.run(_examined(patient, options))
    elif patient.announced is not None:
        own = {"servers": [patient.announced["nats_url"]], **tls_options()}
        yield from asyncio.run(_examined(patient, own, is_own=True))
    else:
        yield Finding("ok", "broker", "the server brings its own, and does not run")


async def _examined(patient: Patient, options: Mapping[str, Any], *, is_own: bool = False) -> list[Finding]:
    where = ",".join(options["servers"]).rpartition("@")[2]
    try:
        client = await _connected(options)
    except _NotLetIn:
        if is_own:
            return [await _own_broker(options["servers"][0], where), Finding("ok", "jetstream", OWN)]
        as_kalam = options_of_kalam(options, patient.data_dir)
        if as_kalam is None or "nkeys_seed_str" in options:
            return [_no_connection(where, REFUSED)]
        return await _examined(patient, as_kalam)
    except OSError as exc:
        return [_no_connection(where, str(exc) or type(exc).__name__)]
    try:
        return [finding async for finding in _findings(patient, client, where)]
    finally:
        await client.close()


def _no_connection(where: str, why: str) -> Finding:
    text = f"no connection to {where}: {why}"
    return Finding("fail", "broker", text, "start it, or look at --nats-url and its credentials")


class _NotLetIn(Exception):
    """The broker knows nobody who logs in so."""


async def _connected(options: Mapping[str, Any]) -> Client:
    """A connection; raises _NotLetIn and OSError."""
    said: list[Exception] = []

    async def note(exc: Exception) -> None:
        said.append(exc)

    quiet: dict[str, Any] = {
        "max_reconnect_attempts": 1,  # 0 would mean for ever
        "reconnect_time_wait": 0,
        "allow_reconnect": False,
        "connect_timeout": TIME_S,
        "error_cb": note,
    }
    try:
        async with asyncio.timeout(TIME_S):
            return await nats.connect(**options, **quiet)
    except (nats_errors.Error, OSError, TimeoutError) as exc:
        why = said[-1] if said else exc  # that no server is left says nothing of why
        if REFUSED in str(why).lower():
            raise _NotLetIn from exc
        raise OSError(str(why) or type(why).__name__) from exc


async def _own_broker(url: str, where: str) -> Finding:
    """What a broker whose users log in tells everybody who comes, before the login."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(TIME_S):
            told = json.loads((await reader.readline()).partition(b" ")[2])
    finally:
        writer.close()
    return Finding("ok", "broker", f"nats-server {told['version']} at {where}, where users log in")


async def _findings(patient: Patient, client: Client, where: str) -> Any:
    told = client.connected_server_version
    version = f"{told.major}.{told.minor}.{told.patch}"
    if (told.major, told.minor) < VERSION_MIN:
        least = ".".join(map(str, VERSION_MIN))
        yield Finding("fail", "broker", f"nats-server {version} at {where}", f"install {least} or later")
    else:
        yield Finding("ok", "broker", f"nats-server {version} at {where}")
    account = await _ask(client, "INFO")
    if account is None or "error" in account:
        text = (account or {}).get("error", {}).get("description", "it does not answer")
        yield Finding("fail", "jetstream", f"JetStream: {text}", "enable it (nats-server -js), and for this account")
        return
    yield room_finding(account)
    streams = await _streams(client)
    for finding in clock_findings(streams):
        yield finding
    for finding in _against_catalogue(patient, streams):
        yield finding


async def _ask(client: Client, subject: str, body: Any = None) -> dict[str, Any] | None:
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        reply = await client.request(f"$JS.API.{subject}", payload, timeout=TIME_S)
    except (nats_errors.Error, TimeoutError):
        return None
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def _streams(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        asked = time.time()
        page = await _ask(client, "STREAM.LIST", {"offset": len(found)}) or {}
        answered = time.time()
        streams = page.get("streams") or []
        found += [stream | {"asked": (asked, answered)} for stream in streams]
        if not streams or len(found) >= page.get("total", 0):
            return found


def room_finding(account: Mapping[str, Any]) -> Finding:
    """How much of what its account may store is taken, as JetStream tells it."""
    used, limit = account.get("storage", 0), account.get("limits", {}).get("max_storage", -1)
    if limit <= 0:
        return Finding("ok", "jetstream", f"{size_text(used)} stored, without a limit of the account")
    share, text = used / limit, f"{size_text(used)} of {size_text(limit)} stored"
    if share > ROOM_FAIL:
        return Finding(
            "fail", "jetstream", text, "raise the account's limit, or lower changes_bytes_max and MAX_BUFFER"
        )
    return Finding("warn" if share > ROOM_WARN else "ok", "jetstream", text)


def clock_findings(streams: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """How far the broker's clock is off, by the time that it puts into an answer."""
    told = next(((stream["ts"], *stream["asked"]) for stream in streams if stream.get("ts")), None)
    if told is None:
        return
    text, asked, answered = told
    there = datetime.fromisoformat(text[:-1][:26]).replace(tzinfo=UTC).timestamp()
    off_s = there - answered if there > answered else min(0.0, there - asked)
    if abs(off_s) < CLOCK_WARN_S:
        yield Finding("ok", "clock", "that of the broker is the same")
    else:
        level: Level = "fail" if abs(off_s) >= CLOCK_FAIL_S else "warn"
        advice = "set both by NTP: RETENTION and the ages of changes go by the broker's clock"
        yield Finding(
            level, "clock", f"that of the broker is {abs(off_s):.1f} s {'ahead' if off_s > 0 else 'behind'}", advice
        )


def _against_catalogue(patient: Patient, streams: list[dict[str, Any]]) -> Iterator[Finding]:
    if not (patient.data_dir / DATABASE).is_file():
        return
    with closing(connect(patient.data_dir / DATABASE, read_only=True)) as conn:
        [data_id] = conn.execute("SELECT value FROM meta WHERE name = 'data_id'").fetchone()
        tables = {str(table.table_id): table for table in read_tables(conn) if table.is_stream}
        dropped = {
            name.rpartition(":")[2] for (name,) in conn.execute("SELECT name FROM meta WHERE name LIKE 'unpurged:%'")
        }
    owned = [stream["config"] for stream in streams if _metadata(stream).get(DATA_ID) == data_id]
    by_table = {config["metadata"].get(TABLE_ID): config["name"] for config in owned if TABLE_ID in config["metadata"]}
    unknown = [name for table_id, name in by_table.items() if table_id not in tables and table_id not in dropped]
    if unknown:
        text = f"{len(unknown)} of tables that kalam.db does not name, such as {', '.join(sorted(unknown)[:NAMED])}"
        yield Finding("warn", "streams", text, "put the newest kalam.db back, or remove one with nats stream rm")
    missing = [str(table.name) for table_id, table in tables.items() if table_id not in by_table]
    if missing:
        text = f"{len(missing)} STREAM tables have none, such as {', '.join(sorted(missing)[:NAMED])}"
        yield Finding("fail", "streams", text, "their events are not in this broker; is it the right one?")
    if not unknown and not missing:
        yield Finding("ok", "streams", f"{len(tables)} of STREAM tables, as kalam.db names them")


def _metadata(stream: Mapping[str, Any]) -> Mapping[str, str]:
    return stream["config"].get("metadata") or {}
