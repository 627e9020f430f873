"""``/livez``, ``/readyz`` and ``/metrics``: what an operator's machines ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kalam.engine import Engine
from kalam_http.bodies import JSON, HealthCheck, Readiness
from kalam_http.routes import Routes


def health_routes(
    engine: Engine, registry: CollectorRegistry, identity: Mapping[str, str], *, health_s_max: float
) -> Routes:
    """The routes that say how the server is. Checks that take longer than ``health_s_max`` seconds have failed.

    ``identity`` is which server it is and where else it is found.
    """
    routes = Routes("Operation")

    @routes.get("/livez", summary="Whether the process is alive", operation_id="livez")
    async def livez(_: Request) -> Response:
        """Answer `ok` as long as the event loop turns."""
        return PlainTextResponse("ok\n")

    @routes.get("/readyz", summary="Whether the server can take requests", operation_id="readyz")
    async def readyz(_: Request) -> Response:
        """Answer 200 when every check holds and 503 when one fails; the body lists the checks."""
        readiness = Readiness(*await _checked(engine, health_s_max), dict(identity))
        return Response(msgspec.json.encode(readiness), 200 if readiness.ready else 503, media_type=JSON)

    @routes.get("/metrics", summary="Metrics for Prometheus", operation_id="metrics")
    async def metrics(_: Request) -> Response:
        """Answer in the Prometheus text format."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


async def _checked(engine: Engine, health_s_max: float) -> tuple[bool, list[HealthCheck]]:
    try:
        async with asyncio.timeout(health_s_max):
            checks = [HealthCheck(check.name, check.ok, check.detail) for check in await engine.health()]
    except TimeoutError:
        checks = [HealthCheck("health", ok=False, detail=f"the checks did not finish within {health_s_max:g} s")]
    return all(check.ok for check in checks), checks
