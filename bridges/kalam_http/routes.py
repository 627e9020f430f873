"""The table of routes: what is served and what ``/openapi.json`` says of it are made from the same entries.

Starlette knows a path and its endpoint; what a person or a program wants to know about it stands beside them here. An
endpoint's docstring is its description.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from kalam_http.credentials import COOKIE

Endpoint = Callable[[Request], Awaitable[Response]]


SECURITY_SCHEMES: Final[dict[str, dict[str, str]]] = {
    "basic": {"type": "http", "scheme": "basic", "description": "a user and a password, or a token as the password"},
    "token": {"type": "http", "scheme": "bearer", "description": "a token, as CREATE TOKEN answers it"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "what `POST /v1/login` answers; behind the name stands the id of the server",
    },
}
"""How a request says who asks, while authentication is on."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What OpenAPI says of one method of one path, but for its body and its answers.

    ``strangers`` may ask it, who do not say who they are.
    """

    tag: str
    operation_id: str
    summary: str
    description: str
    parameters: Sequence[dict[str, Any]]
    strangers: bool

    def document(self) -> dict[str, Any]:
        """The operation object, to which body and answers are added."""
        document = {
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
            "operationId": self.operation_id,
            "security": [] if self.strangers else [{name: []} for name in SECURITY_SCHEMES],
        }
        return document | ({"parameters": list(self.parameters)} if self.parameters else {})


class DescribedRoute(Route):
    """One method of one path."""

    def __init__(self, method: str, path: str, endpoint: Endpoint, operation: Operation) -> None:
        super().__init__(path, endpoint, methods=[method], name=operation.operation_id)
        self.method, self.operation = method, operation
        self.methods = {method}  # Starlette adds HEAD to GET, and a HEAD of a live query would open one

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Also leave the route in the scope, for whoever counts the requests of each."""
        match, child_scope = super().matches(scope)
        return match, child_scope if match is Match.NONE else {**child_scope, "route": self}


class Routes(msgspec.Struct, frozen=True):
    """The routes of one part of the API, which all have its ``tag``."""

    tag: str
    routes: list[DescribedRoute] = msgspec.field(default_factory=list)

    def get(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        """As ``add``, for GET."""
        return self.add("GET", path, **described)

    def post(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        """As ``add``, for POST."""
        return self.add("POST", path, **described)

    def delete(self, path: str, **described: Any) -> Callable[[Endpoint], Endpoint]:
        """As ``add``, for DELETE."""
        return self.add("DELETE", path, **described)

    def add(
        self,
        method: str,
        path: str,
        *,
        summary: str,
        operation_id: str,
        path_parameters: Mapping[str, str] | None = None,
        parameters: Sequence[dict[str, Any]] = (),
        strangers: bool = False,
    ) -> Callable[[Endpoint], Endpoint]:
        """Decorate the endpoint of ``method`` and ``path``.

        ``path_parameters`` describes each name in braces, ``parameters`` holds OpenAPI's objects of headers and of the
        query. ``strangers``: nobody is asked who they are.
        """
        described = [path_parameter(name, text) for name, text in (path_parameters or {}).items()]

        def decorate(endpoint: Endpoint) -> Endpoint:
            description = inspect.cleandoc(endpoint.__doc__ or "")
            operation = Operation(
                tag=self.tag,
                operation_id=operation_id,
                summary=summary,
                description=description,
                parameters=[*described, *parameters],
                strangers=strangers,
            )
            self.routes.append(DescribedRoute(method, path, endpoint, operation))
            return endpoint

        return decorate


def path_parameter(name: str, description: str) -> dict[str, Any]:
    """OpenAPI's object of a part of the path."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
