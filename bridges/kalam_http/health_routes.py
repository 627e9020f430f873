"""``/livez``, ``/readyz`` and ``/metrics``: what an operator's machines ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final, cast

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from kalam.engine import Engine
from kalam.errors import Unauthenticated
from kalam.threads import Purpose, in_thread
from kalam_http.bodies import JSON, HealthCheck, Readiness
from kalam_http.identity import Entrance
from kalam_http.routes import Routes

NAMING: Final = frozenset(("table", "stream"))
"""Labels that name a table: a STREAM table's stream is called by its name."""


def health_routes(
    engine: Engine,
    registry: CollectorRegistry,
    identity: Mapping[str, str],
    entrance: Entrance,
    *,
    health_s_max: float,
    metrics_public: bool,
) -> Routes:
    """The routes that say how the server is. Checks that take longer than ``health_s_max`` seconds have failed.

    ``identity`` is which server it is and where else it is found. ``metrics_public``: strangers may read the metrics.
    """
    routes = Routes("Operation")

    @routes.get("/livez", summary="Whether the process is alive", operation_id="livez", strangers=True)
    async def livez(_: Request) -> Response:
        """Answer `ok` as long as the event loop turns."""
        return PlainTextResponse("ok\n")

    @routes.get("/readyz", summary="Whether the server can take requests", operation_id="readyz", strangers=True)
    async def readyz(request: Request) -> Response:
        """Answer 200 when every check holds and 503 when one fails; the body lists the checks.

        While authentication is on, a stranger is told the names of those that fail and nothing else.
        """
        known = await entrance.visit_of_told(request.scope)
        ready, checks = await _checked(engine, health_s_max)
        if known is None:
            failed = [HealthCheck(check.name, ok=False, detail="") for check in checks if not check.ok]
            readiness = Readiness(ready, failed)
        else:
            readiness = Readiness(ready, checks, dict(identity))
        return Response(msgspec.json.encode(readiness), 200 if readiness.ready else 503, media_type=JSON)

    @routes.get("/metrics", summary="Metrics for Prometheus", operation_id="metrics", strangers=True)
    async def metrics(request: Request) -> Response:
        """Answer in the Prometheus text format.

        While authentication is on, only administrators read the names of tables, and strangers nothing unless the
        setting `metrics_public` lets them.
        """
        known = await entrance.visit_of_told(request.scope)
        if known is None and not metrics_public:
            raise Unauthenticated("the metrics are not public (setting metrics_public): say who you are")
        whole = known is not None and entrance.administers(known.identity)
        found = Collected(list((registry if whole else WithoutTables(registry)).collect()))
        told = await in_thread(Purpose.ANSWERS, generate_latest, cast("CollectorRegistry", found))
        return Response(told, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes


class Collected(msgspec.Struct, frozen=True):
    """What a registry told at one moment: to write a thousand series takes longer than the loop may wait."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        """As a registry does."""
        return self.metrics


class WithoutTables:
    """The metrics of a registry but for the series of single tables."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """As a registry does."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if NAMING.isdisjoint(sample.labels)]
            if metric.samples:
                yield metric


async def _checked(engine: Engine, health_s_max: float) -> tuple[bool, list[HealthCheck]]:
    try:
        async with asyncio.timeout(health_s_max):
            checks = [HealthCheck(check.name, check.ok, check.detail) for check in await engine.health()]
    except TimeoutError:
        checks = [HealthCheck("health", ok=False, detail=f"the checks did not finish within {health_s_max:g} s")]
    return all(check.ok for check in checks), checks
