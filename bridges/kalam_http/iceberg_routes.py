"""The Iceberg REST catalogue, read-only: https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml.

What a client may read is what it may SELECT (``kalam.engine.lake``). Nothing is handed out that opens a store: with a
LOCATION in one, readers bring their own access. Errors have the specification's form, but for those of the login, which
are this API's own everywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kalam.engine import Caller, Engine
from kalam.errors import KalamError, NamespaceNotFound, TableNotFound, Unauthenticated
from kalam.names import TableName
from kalam_http.bodies import JSON
from kalam_http.identity import USER_PARAMETER, caller_of
from kalam_http.problems import answer_kalam_error
from kalam_http.routes import Routes

ROOT: Final = "/iceberg"
NAMESPACE: Final = "/v1/namespaces/{namespace}"
TABLE: Final = f"{NAMESPACE}/tables/{{table}}"
ENDPOINTS: Final = [
    f"{method} {path.replace('/v1', '/v1/{prefix}')}"
    for method, path in (
        ("GET", "/v1/namespaces"),
        ("GET", NAMESPACE),
        ("HEAD", NAMESPACE),
        ("GET", f"{NAMESPACE}/tables"),
        ("GET", TABLE),
        ("HEAD", TABLE),
    )
]
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
READ_ONLY: Final = "this catalogue is read-only: tables are created, written and dropped by SQL (POST /v1/sql)"

Answer = Callable[[Caller, Request], Awaitable[Response]]


def iceberg_routes(engine: Engine) -> Routes:
    """The routes of the catalogue that exist."""
    routes = Routes("Iceberg")
    in_namespace = {"namespace": "a namespace"}
    in_table = in_namespace | {"table": "a table"}

    route = partial(_route, routes, engine)

    @route("/v1/config", "Iceberg: what this catalogue can do", "iceberg_config", {})
    async def config(_: Caller, __: Request) -> Response:
        """Answer the configuration of a client of the Iceberg REST catalogue: there is nothing to configure."""
        return _json({"defaults": {}, "overrides": {}, "endpoints": ENDPOINTS})

    @route("/v1/namespaces", "Iceberg: the namespaces", "iceberg_namespaces", {})
    async def namespaces(caller: Caller, request: Request) -> Response:
        """Answer the namespaces, all at once; none lies in another."""
        names = [] if request.query_params.get("parent") else sorted(caller.namespaces())
        return _json({"namespaces": [[name] for name in names]})

    @route(NAMESPACE, "Iceberg: one namespace", "iceberg_namespace", in_namespace)
    async def namespace(caller: Caller, request: Request) -> Response:
        """Answer that a namespace exists; it has no properties."""
        caller.lake_tables(_namespace(request))
        return _json({"namespace": [_namespace(request)], "properties": {}})

    @route(f"{NAMESPACE}/tables", "Iceberg: the tables of a namespace", "iceberg_tables", in_namespace)
    async def tables(caller: Caller, request: Request) -> Response:
        """Answer the SHARED tables whose rows the caller may read, for an administrator the USER tables too."""
        names = caller.lake_tables(_namespace(request))
        return _json({"identifiers": [{"namespace": [name.namespace], "name": name.table} for name in names]})

    @route(TABLE, "Iceberg: a table", "iceberg_table", in_table)
    async def table(caller: Caller, request: Request) -> Response:
        """Answer the metadata of a table as of its last commit, with the snapshots that can be read."""
        name = TableName(_namespace(request), request.path_params["table"].lower())
        location, metadata = await caller.lake_metadata(name)
        return _json({"metadata-location": location, "metadata": msgspec.Raw(metadata), "config": {}})

    return routes


def _route(
    routes: Routes, engine: Engine, path: str, summary: str, operation_id: str, parameters: dict[str, str]
) -> Callable[[Answer], Answer]:
    """Add what is decorated as a route, for HEAD too where the specification has that."""

    def decorate(answer: Answer) -> Answer:
        @wraps(answer)
        async def endpoint(request: Request) -> Response:
            caller = caller_of(engine, request)
            try:
                return await answer(caller, request)
            except KalamError as exc:
                return error_response(exc)

        methods = ("GET", "HEAD") if f"HEAD {path.replace('/v1', '/v1/{prefix}')}" in ENDPOINTS else ("GET",)
        for method in methods:
            routes.add(
                method,
                f"{ROOT}{path}",
                summary=summary,
                operation_id=f"{operation_id}{'_exists' if method == 'HEAD' else ''}",
                path_parameters=parameters,
                parameters=[USER_PARAMETER],
            )(endpoint)
        return answer

    return decorate


def iceberg_refusals() -> list[Route]:
    """What answers everything else under the root: 403 to who would write, 404 to who asks for what is not there."""

    async def refuse(request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return _error(404, "NoSuchEndpointException", f"there is no route {request.url.path[:200]}")
        return _error(403, "ForbiddenException", READ_ONLY)

    return [Route(f"{ROOT}/{{rest:path}}", refuse, methods=METHODS, name="iceberg_refusal")]


def error_response(error: KalamError) -> Response:
    """An error in the specification's form."""
    match error:
        case TableNotFound():
            kind = "NoSuchTableException"
        case NamespaceNotFound():
            kind = "NoSuchNamespaceException"
        case Unauthenticated():
            kind = "NotAuthorizedException"
        case _:
            kind = "ForbiddenException" if error.status == 403 else "ServiceFailureException"
    response = _error(error.status, kind, error.detail)
    if (retry_after := error.fields.get("retry_after")) is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error that was raised before or in a handler: below the root in the specification's form."""
    if isinstance(error, KalamError) and request.url.path.startswith(f"{ROOT}/"):
        return error_response(error)
    return await answer_kalam_error(request, error)


def _error(status: int, kind: str, message: str) -> Response:
    return _json({"error": {"message": message, "type": kind, "code": status}}, status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type=JSON)


def _namespace(request: Request) -> str:
    return str(request.path_params["namespace"]).lower()
