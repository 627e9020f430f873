"""``/openapi.json`` for programs and ``/docs`` for people.

The usual page loads Swagger UI from the internet, where a server on a laptop or behind a wall has none, and hands
a foreign script the server's Origin. This one is a single page without any script, made from the same document.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from kalam.threads import Purpose, in_thread
from kalam_http.bodies import JSON
from kalam_http.openapi import openapi_document
from kalam_http.routes import DescribedRoute, Routes

STYLE = """
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1c2430 }
h2 { margin-top: 2.5rem; border-top: 1px solid #d8dee6; padding-top: 1rem }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f2f5f8; border-radius: 4px }
code { padding: 0 .25em } pre { padding: .75rem; overflow-x: auto }
td { padding: .2rem 1.2rem .2rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { background: #14181e; color: #dbe2ea } code, pre { background: #1f2630 } }
"""
EXAMPLE = """curl http://localhost:8080/v1/sql -H 'Content-Type: application/json' \\
     -d '{"sql": "SELECT $1 AS greeting", "params": ["hello"]}'"""


def description_routes(others: Sequence[DescribedRoute]) -> Routes:
    """The routes that describe ``others`` and themselves; the document is made when it is first asked for."""
    routes = Routes("Description")

    @functools.cache
    def document() -> dict[str, Any]:
        return openapi_document([*others, *routes.routes])

    @functools.cache
    def page() -> str:
        return docs_page(document())

    @routes.get("/openapi.json", summary="This API for programs", operation_id="openapi", strangers=True)
    async def openapi(_: Request) -> Response:
        """Answer the OpenAPI 3.1 document."""
        return Response(msgspec.json.encode(await in_thread(Purpose.DESCRIPTIONS, document)), media_type=JSON)

    @routes.get("/docs", summary="This API for people", operation_id="docs", strangers=True)
    async def docs(_: Request) -> Response:
        """Answer a page that needs neither scripts nor the internet."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(await in_thread(Purpose.DESCRIPTIONS, page), headers={"Content-Security-Policy": policy})

    return routes


def docs_page(document: dict[str, Any]) -> str:
    """The OpenAPI document as one HTML page."""
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f"<h3 id='{escape(name)}'>{escape(name)}</h3><pre>{escape(_pretty(schema))}</pre>"
        for name, schema in document["components"]["schemas"].items()
    )
    info = document["info"]
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(info['title'])}</title>"
        f"<style>{STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{_prose(info['description'])}</p><pre>{escape(EXAMPLE)}</pre>{operations}<h2>Types</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code><td>{_type_of(answer)}<td>{_prose(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    parameters = "".join(
        f"<p>{escape(found['in'])} <code>{escape(found['name'])}</code>: {_prose(found['description'])}</p>"
        for found in operation.get("parameters", ())
    )
    body = f"<p>Body: {_type_of(operation['requestBody'])}</p>" if "requestBody" in operation else ""
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{_prose(operation['description'])}</p>"
        f"{parameters}{body}<table>{answers}</table>"
    )


def _prose(text: str) -> str:
    """A description as HTML: what stands between backticks is code, as in Markdown."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _type_of(described: dict[str, Any]) -> str:
    return ", ".join(_media_type(name, content) for name, content in described.get("content", {}).items())


def _media_type(media_type: str, content: dict[str, Any]) -> str:
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    link = f" <a href='#{escape(name)}'>{escape(name)}</a>" if name else ""
    return f"<code>{escape(media_type)}</code>{link}"


def _pretty(schema: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
