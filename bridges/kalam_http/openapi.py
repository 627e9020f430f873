"""/openapi.json: the table of routes, with the types that msgspec decodes and the errors that exist.

Each operation's body and answers are written here, from the types in ``bodies`` and the tree in ``kalam.errors``: what
the server does and what it says have one source.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kalam import __version__
from kalam.errors import KalamError
from kalam_http.bodies import JSON, Described, LoginRequest, Me, Problem, Readiness, RowsAnswer, SqlAnswer, SqlRequest
from kalam_http.problems import PROBLEM
from kalam_http.routes import SECURITY_SCHEMES, DescribedRoute
from kalam_http.rows_body import ROW_FORMATS
from kalam_http.streamed_answer import STREAMED

SCHEMA_REF = "#/components/schemas/{name}"
INFO = {
    "title": "Kalam",
    "version": __version__,
    "summary": "SQL tables on NATS.",
    "description": "Errors are `application/problem+json` (RFC 9457) with a stable `code`. Every request must name "
    "this server in its Host, and may not come from a web page of another Origin: else 403 `permission_denied`.",
}
_MEDIA_TYPES = {
    **dict.fromkeys(("/", "/docs"), "text/html"),
    **dict.fromkeys(("/openapi.json", "/v1/overview", "/v1/catalogue"), JSON),
    **dict.fromkeys(
        (
            *("/iceberg/v1/config", "/iceberg/v1/namespaces", "/iceberg/v1/namespaces/{namespace}"),
            "/iceberg/v1/namespaces/{namespace}/tables",
            "/iceberg/v1/namespaces/{namespace}/tables/{table}",
        ),
        JSON,
    ),
}
# What can befall a request before its route sees it.
EDGE_STATUSES = (403, 408, 413, 429, 500)
ASKED_STATUSES = (401, 404)  # by the question who asks, and for whom


def openapi_document(routes: Iterable[DescribedRoute]) -> dict[str, Any]:
    """The OpenAPI document of an application with these routes."""
    _, schemas = msgspec.json.schema_components(
        [SqlRequest, SqlAnswer, Described, RowsAnswer, LoginRequest, Me, Problem, Readiness], ref_template=SCHEMA_REF
    )
    codes = error_codes()
    schemas["Problem"]["properties"]["code"]["enum"] = sorted(code for group in codes.values() for code in group)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(route.path, {})[route.method.lower()] = route.operation.document()
        _describe(route.path, operation, codes)
    components = {"schemas": schemas, "securitySchemes": SECURITY_SCHEMES}
    return {"openapi": "3.1.0", "info": INFO, "paths": paths, "components": components}


def error_codes() -> dict[int, list[str]]:
    """The codes of every error that Kalam answers with, by HTTP status."""
    codes: dict[int, set[str]] = {}
    classes: list[type[KalamError]] = [KalamError]
    while classes:
        error = classes.pop()
        classes += error.__subclasses__()
        if error.__module__ == KalamError.__module__ and "code" in vars(error):
            codes.setdefault(error.status, set()).add(error.code)
    return {status: sorted(names) for status, names in sorted(codes.items())}


def _describe(path: str, operation: dict[str, Any], codes: dict[int, list[str]]) -> None:
    match path:
        case "/v1/sql":
            operation["requestBody"] = {"required": True, "content": _content(JSON, SqlRequest)}
            streamed = {name: {"schema": {"type": "string"}} for name in STREAMED}
            answers = {
                "200": _answer("The results, or a `Described`.", _content(JSON, SqlAnswer, Described) | streamed)
            }
            statuses: tuple[int, ...] = tuple(codes)
        case "/v1/tables/{namespace}/{table}/rows":
            operation["requestBody"] = {"required": True, "content": {name: _rows_of(name) for name in ROW_FORMATS}}
            answers = {"200": _answer("All rows are stored.", _content(JSON, RowsAnswer))}
            statuses = tuple(codes)
        case "/v1/live":
            events = {"text/event-stream": {"schema": {"type": "string"}}}
            answers = {"200": _answer("Events, until one side ends it.", events)}
            statuses = tuple(codes)
        case "/v1/queries/{query_id}":
            operation["responses"] = {"204": {"description": "It is told to stop."}}
            answers, statuses = operation["responses"], (*EDGE_STATUSES, 404)
        case "/v1/login":
            operation["requestBody"] = {"required": True, "content": _content(JSON, LoginRequest)}
            answers = {"200": _answer("Logged in; the session is in the cookie.", _content(JSON, Me))}
            statuses = (*EDGE_STATUSES, 400, 401)
        case "/v1/logout":
            operation["responses"] = {"204": {"description": "Logged out."}}
            answers, statuses = operation["responses"], EDGE_STATUSES
        case "/v1/me":
            answers, statuses = {"200": _answer("Who asks.", _content(JSON, Me))}, EDGE_STATUSES
        case "/readyz":
            checks = _content(JSON, Readiness)
            answers = {"200": _answer("Ready.", checks), "503": _answer("Not ready.", checks)}
            statuses = EDGE_STATUSES
        case _:
            media_type = _MEDIA_TYPES.get(path, "text/plain")
            kind = "object" if media_type == JSON else "string"
            answers = {"200": _answer("As described.", {media_type: {"schema": {"type": kind}}})}
            statuses = EDGE_STATUSES
    problem = _content(PROBLEM, Problem)
    for status in sorted({*statuses, *(ASKED_STATUSES if operation["security"] else ())}):
        answers[str(status)] = _answer(", ".join(f"`{code}`" for code in codes[status]), problem)
    operation["responses"] = answers


def _rows_of(media_type: str) -> dict[str, Any]:
    """What a body of rows looks like: only JSON has words for it here."""
    row = {"type": "object", "description": "a value for each column; a missing one takes its default"}
    return {"schema": {"type": "array", "items": row} if media_type == JSON else {"type": "string"}}


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _content(media_type: str, *bodies: type[msgspec.Struct]) -> dict[str, Any]:
    schemas = [{"$ref": SCHEMA_REF.format(name=body.__name__)} for body in bodies]
    return {media_type: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
