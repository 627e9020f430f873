"""The HTTP application: the routes, put together around an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from kalam.engine import Engine
from kalam.errors import KalamError
from kalam.rows.taking import WORDS
from kalam.settings import Settings
from kalam.start_checks import is_loopback
from kalam_http.body_bounds import BodyBounds
from kalam_http.console_routes import OverviewDocument, console_routes
from kalam_http.description_routes import description_routes
from kalam_http.edge import Edge, RequestMetrics
from kalam_http.guard import Guard
from kalam_http.health_routes import health_routes
from kalam_http.iceberg_routes import answer_error, iceberg_refusals, iceberg_routes
from kalam_http.identity import USER_HEADER, Entrance
from kalam_http.live_route import live_routes
from kalam_http.login_routes import login_routes
from kalam_http.own_host import OwnHost
from kalam_http.problems import answer_http_exception
from kalam_http.proxies import Proxies
from kalam_http.rows_route import KEY_HEADER, rows_routes
from kalam_http.sql_route import QUERY_ID_HEADER, SQL_PATH, SqlEndpoint, sql_routes

ASKING: Final = ("Authorization", "Content-Type", "Last-Event-ID")


def create_app(
    engine: Engine,
    *,
    settings: Settings,
    registry: CollectorRegistry,
    overview: OverviewDocument,
    identity: Mapping[str, str],
    guard: Guard | None = None,
) -> Starlette:
    """The application that serves ``engine``; its metrics are added to ``registry``, which ``/metrics`` shows.

    ``overview`` gives the document of ``/v1/overview``, ``identity`` is which server it is and where else it is found.
    Without a ``guard`` nobody is asked who they are.
    """
    guard = guard or Guard(Entrance(None, identity.get("id", "")))
    entrance = guard.entrance
    sql = SqlEndpoint(engine)
    edge = Middleware(
        Edge,
        own_host=OwnHost.of(settings),
        proxies=Proxies.of(settings),
        body_bounds=BodyBounds.of(settings),
        metrics=RequestMetrics(registry),
        direct={("POST", SQL_PATH): guard.before(sql)},
    )
    routes = [
        *sql_routes(sql).routes,
        *rows_routes(engine).routes,
        *live_routes(engine).routes,
        *iceberg_routes(engine).routes,
        *login_routes(entrance).routes,
        *console_routes(engine, overview, entrance).routes,
        *health_routes(
            engine,
            registry,
            identity,
            entrance,
            health_s_max=settings.broker_timeout_s,
            metrics_public=metrics_are_public(settings),
        ).routes,
    ]
    routes += description_routes(routes).routes
    for route in routes:
        if not route.operation.strangers:
            route.app = guard.before(route.app)
    app = Starlette(
        routes=[*routes, *iceberg_refusals()],
        middleware=[*_cross_origin(settings.cors_origins), edge],
        exception_handlers={KalamError: answer_error, HTTPException: answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def metrics_are_public(settings: Settings) -> bool:
    """Whether strangers may read the metrics: as the setting says, else where only this machine can ask."""
    if settings.metrics_public is not None:
        return settings.metrics_public
    return is_loopback(settings.http_host) and not settings.trusted_proxies


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """What tells browsers that pages of these origins may read the answers; nothing where there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=(*ASKING, USER_HEADER, QUERY_ID_HEADER, KEY_HEADER, *WORDS),
            allow_credentials=False,
            expose_headers=(QUERY_ID_HEADER, "Retry-After", "WWW-Authenticate"),
        )
    ]
