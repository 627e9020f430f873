"""The outermost layer of the API: who may enter, what is counted, and what becomes of an exception nobody expected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kalam.errors import Internal, KalamError, Unavailable
from kalam.tracing import TRACEPARENT, enter_trace, read_trace
from kalam_http.body_bounds import BodyBounds
from kalam_http.connections import CUT_OFF
from kalam_http.own_host import OwnHost
from kalam_http.problems import problem_response
from kalam_http.proxies import Proxies

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TRACE_HEADER: Final = TRACEPARENT.encode()
CLIENT_GONE: Final = 499  # as web servers log a client that left before its answer
UNAUTHENTICATED: Final = 401
BASIC, BEARER = ((b"www-authenticate", scheme + b' realm="Kalam"') for scheme in (b"Basic", b"Bearer"))
log = structlog.get_logger(__name__)


class BrokenOff(Exception):
    """An answer failed half way: its end is left out."""


class RequestMetrics:
    """Requests by route and status, and how long they took. An unknown path counts as one route, whatever it is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "kalam_http_requests_total", "HTTP requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "kalam_http_request_seconds",
            "Time from the head of an HTTP request to the end of its answer.",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

        # What ``labels`` finds is kept: it takes longer than to count. Routes and statuses are few.
        self._counter = lru_cache(lambda route, status: self._requests.labels(route, str(status)))
        self._histogram = lru_cache(self._seconds.labels)

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._counter(route, status).inc()
        self._histogram(route).observe(seconds)


class Edge:
    """ASGI middleware around the whole application.

    ``direct`` are applications that answer a method and path without the router.
    """

    def __init__(
        self,
        app: ASGIApp,
        own_host: OwnHost,
        proxies: Proxies,
        body_bounds: BodyBounds,
        metrics: RequestMetrics,
        direct: Mapping[tuple[str, str], ASGIApp],
    ) -> None:
        self._app = app
        self._direct = direct
        self._own_host, self._proxies, self._body_bounds = own_host, proxies, body_bounds
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        behind: str | None = None
        direct = self._direct.get((scope["method"], scope["path"]))

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == UNAUTHENTICATED:
                    message["headers"] = [*message["headers"], *challenges(scope)]
            await send(message)

        try:
            behind = self._proxies.enter(scope)
            self._look_at_headers(scope)
            receive = self._body_bounds.bounded(scope, receive)
            await (direct or self._app)(scope, receive, watched_send)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except BrokenOff as exc:
            log.warning("an answer is broken off", reason=str(exc), **_named(scope))
            _cut_off(scope)
        except asyncio.CancelledError:  # it works on while the server has waited long enough to stop
            if status:
                raise
            await _answer(Unavailable("the server stopped before the answer was ready"), scope, status, watched_send)
        except KalamError as exc:
            await _answer(exc, scope, status, watched_send)
        except Exception:
            log.exception("a request failed", **_named(scope))
            error = Internal("the server failed to answer; its log has the reason")
            await _answer(error, scope, status, watched_send)
        finally:
            if behind is not None:
                self._proxies.leave(behind)
            route = scope["path"] if direct else _route_of(scope)
            self._metrics.record(route, status or CLIENT_GONE, time.perf_counter() - started)

    def _look_at_headers(self, scope: Scope) -> None:
        """Refuse what is not for this server, and take note of the trace that the request belongs to."""
        hosts: list[str] = []
        origin: str | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value.decode("latin-1"))
            elif name == b"origin":
                origin = origin or value.decode("latin-1")
            elif name == TRACE_HEADER and (trace := read_trace(value.decode("latin-1"))):
                enter_trace(trace)
        address, port = scope["server"]
        self._own_host.check(hosts, origin, address, port, scheme=scope["scheme"])


def challenges(scope: Scope) -> list[tuple[bytes, bytes]]:
    """How somebody may say who they are; a browser would open a dialog of its own for Basic."""
    from_browser = any(name == b"sec-fetch-mode" for name, _ in scope["headers"])
    return [BEARER] if from_browser else [BASIC, BEARER]


async def _answer(error: KalamError, scope: Scope, status: int, send: Send) -> None:
    """Answer with an error, or break the transfer off."""
    if status:  # half an answer is out, and nothing else can tell that it is not whole
        _cut_off(scope)
        return
    response = problem_response(error)
    if any(name == b"expect" for name, _ in scope["headers"]):  # it waits to be asked for its body, which is not read
        response.headers["Connection"] = "close"
    await response(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _named(scope: Scope) -> dict[str, str]:
    return {"method": scope["method"], "path": scope["path"]}


def _cut_off(scope: Scope) -> None:
    scope["state"][CUT_OFF]()


def _route_of(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
