from __future__ import annotations

import asyncio

from kalam.engine import Check


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
