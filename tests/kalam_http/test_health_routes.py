from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families
from server_process import ServerProcess

from kalam.engine import Check
from kalam_http.health_routes import NAMING, WithoutTables


async def test_livez_answers_as_long_as_the_process_does(http):
    assert ((await http.get("/livez")).status_code, (await http.get("/livez")).text) == (200, "ok\n")


async def test_readyz_lists_the_checks(http):
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": [
            {"name": "sqlite", "ok": True, "detail": "writable"},
            {"name": "nats", "ok": True, "detail": "connected"},
        ],
        "server": {"id": "mine"},
    }


async def test_readyz_is_503_when_one_check_fails(http, engine):
    engine.checks[1] = Check("nats", ok=False, detail="disconnected for 3 s")
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    assert answer.json()["checks"][1]["detail"] == "disconnected for 3 s"


async def test_readyz_is_503_when_the_checks_hang(http, engine):
    async def hang() -> list[Check]:
        await asyncio.Event().wait()
        return []

    engine.health = hang
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert "0.2 s" in answer.json()["checks"][0]["detail"]


LABELS = {
    *("kind", "outcome", "code", "door", "state", "type", "status", "what", "le", "route", "method", "reason", "cause"),
    *("version",),
}
"""Labels that tell nothing of what there is."""


def test_what_names_a_table_is_shown_to_administrators_only(shared_server: ServerProcess) -> None:
    shared_server.sql("CREATE NAMESPACE told; CREATE STREAM TABLE told.t (id INT); INSERT INTO told.t VALUES (1)")
    whole = list(text_string_to_metric_families(shared_server.metrics()))
    labels = {label for family in whole for sample in family.samples for label in sample.labels}
    assert "table" in labels
    assert labels <= LABELS | NAMING
    registry = CollectorRegistry()
    for number, label in enumerate((*NAMING, "code")):
        Gauge(f"told{number}", "By it.", [label], registry=registry).labels("told").set(1)
    left = [sample.labels for family in WithoutTables(registry).collect() for sample in family.samples]
    assert left == [{"code": "told"}]
