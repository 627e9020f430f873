"""The HTTP application: the routes, put together around an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from kalam.engine import Engine
from kalam.errors import KalamError
from kalam.rows.taking import WORDS
from kalam.settings import Settings
from kalam_http.body_bounds import BodyBounds
from kalam_http.console_routes import console_routes
from kalam_http.description_routes import description_routes
from kalam_http.edge import Edge, RequestMetrics
from kalam_http.health_routes import health_routes
from kalam_http.identity import USER_HEADER
from kalam_http.live_route import live_routes
from kalam_http.own_host import OwnHost
from kalam_http.problems import answer_http_exception, answer_kalam_error
from kalam_http.proxies import Proxies
from kalam_http.rows_route import KEY_HEADER, rows_routes
from kalam_http.sql_route import QUERY_ID_HEADER, SQL_PATH, SqlEndpoint, sql_routes


def create_app(
    engine: Engine,
    *,
    settings: Settings,
    registry: CollectorRegistry,
    overview: Callable[[], dict[str, Any]],
    identity: Mapping[str, str],
) -> Starlette:
    """The application that serves ``engine``; its metrics are added to ``registry``, which ``/metrics`` shows.

    ``overview`` gives the document of ``/v1/overview``, ``identity`` is which server it is and where else it is found.
    """
    sql = SqlEndpoint(engine)
    edge = Middleware(
        Edge,
        own_host=OwnHost.of(settings),
        proxies=Proxies.of(settings),
        body_bounds=BodyBounds.of(settings),
        metrics=RequestMetrics(registry),
        direct={("POST", SQL_PATH): sql},
    )
    routes = [
        *sql_routes(sql).routes,
        *rows_routes(engine).routes,
        *live_routes(engine).routes,
        *console_routes(engine, overview).routes,
        *health_routes(engine, registry, identity, health_s_max=settings.broker_timeout_s).routes,
    ]
    app = Starlette(
        routes=[*routes, *description_routes(routes).routes],
        middleware=[*_cross_origin(settings.cors_origins), edge],
        exception_handlers={KalamError: answer_kalam_error, HTTPException: answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """What tells browsers that pages of these origins may read the answers; nothing where there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Content-Type", "Last-Event-ID", USER_HEADER, QUERY_ID_HEADER, KEY_HEADER, *WORDS),
            expose_headers=(QUERY_ID_HEADER,),
        )
    ]
