"""The HTTP application: the routes, put together around an engine."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from kalam.engine import Engine
from kalam.errors import KalamError
from kalam.settings import Settings
from kalam_http.body_bounds import BodyBounds
from kalam_http.description_routes import description_routes
from kalam_http.edge import Edge, RequestMetrics
from kalam_http.health_routes import health_routes
from kalam_http.live_route import live_routes
from kalam_http.own_host import OwnHost
from kalam_http.problems import answer_http_exception, answer_kalam_error
from kalam_http.rows_route import rows_routes
from kalam_http.sql_route import SQL_PATH, SqlEndpoint, sql_routes


def create_app(engine: Engine, *, settings: Settings, registry: CollectorRegistry) -> Starlette:
    """The application that serves ``engine``; its metrics are added to ``registry``, which ``/metrics`` shows."""
    sql = SqlEndpoint(engine)
    edge = Middleware(
        Edge,
        own_host=OwnHost.of(settings.http_host),
        body_bounds=BodyBounds.of(settings),
        metrics=RequestMetrics(registry),
        direct={("POST", SQL_PATH): sql},
    )
    routes = [
        *sql_routes(sql).routes,
        *rows_routes(engine).routes,
        *live_routes(engine).routes,
        *health_routes(engine, registry, health_s_max=settings.broker_timeout_s).routes,
    ]
    app = Starlette(
        routes=[*routes, *description_routes(routes).routes],
        middleware=[edge],
        exception_handlers={KalamError: answer_kalam_error, HTTPException: answer_http_exception},
    )
    app.router.redirect_slashes = False
    return app
