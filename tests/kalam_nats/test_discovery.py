from __future__ import annotations

import json

from live_subscriber import ask, connected
from server_process import ServerProcess

from kalam import __version__


async def test_the_service_is_found_with_its_endpoints_and_counts(shared_server: ServerProcess) -> None:
    async with connected(shared_server.nats_url) as client:
        await ask(client, "kalam.api.ada.sql", {"sql": "SELECT 1"})
        refused = await client.request("kalam.api.ada.sql", b'{"sql": "SELEC"}')
        assert refused.headers is not None
        ping, info, stats = [
            json.loads((await client.request(f"$SRV.{verb}{name}", b"")).data)
            for verb, name in (("PING", ""), ("INFO", ".kalam"), ("STATS", ".kalam"))
        ]
        assert (ping["name"], ping["version"], ping["type"]) == ("kalam", __version__, "io.nats.micro.v1.ping_response")
        direct = json.loads((await client.request(f"$SRV.PING.kalam.{ping['id']}", b"")).data)
        assert direct == ping
        assert {endpoint["name"]: endpoint["subject"] for endpoint in info["endpoints"]} == {
            "insert": "kalam.api.*.insert.*.*",
            "sql": "kalam.api.*.sql",
            "live": "kalam.api.*.live",
            "replay": "kalam.api.*.replay",
            "live-close": "kalam.api.*.live.*.close",
            "info": "kalam.api.*.info",
        }
        asked = await client.request("kalam.api.ada.info", b"")
        assert json.loads(asked.data) == info
        [counts] = [endpoint for endpoint in stats["endpoints"] if endpoint["name"] == "sql"]
        assert (counts["num_requests"], counts["num_errors"]) == (2, 1)
        assert counts["last_error"].startswith("400:")
        assert counts["processing_time"] > 0
