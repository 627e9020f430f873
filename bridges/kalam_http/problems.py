"""Errors as ``application/problem+json`` answers, whatever raised them. A traceback goes to the log and never out."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from kalam.errors import Internal, KalamError, NotFound, Unsupported
from kalam.query.results import problem_json

PROBLEM = "application/problem+json"


class MethodUnsupported(Unsupported):
    """The route exists and takes other methods."""

    status = 405


def problem_response(error: KalamError) -> Response:
    """The answer that tells ``error``."""
    retry_after = error.fields.get("retry_after")
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return Response(problem_json(error), status_code=error.status, media_type=PROBLEM, headers=headers)


async def answer_kalam_error(request: Request, error: Exception) -> Response:
    """Answer an error that a handler raised."""
    assert isinstance(error, KalamError)
    return problem_response(error)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router raises: an unknown path, or a method that the path does not take."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.url.path[:200]
    known: KalamError
    match error.status_code:
        case 404:
            known = NotFound(f"there is no route {path}", hint="/openapi.json lists the routes")
        case 405:
            known = MethodUnsupported(f"{path} does not take {request.method}; it takes {headers.get('Allow')}")
        case _:
            known = Internal(f"the request was refused by the router with status {error.status_code}")
    response = problem_response(known)
    response.headers.update(headers)
    return response
