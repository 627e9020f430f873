"""The web console at ``/``, and the two routes that were added for it.

The console is files and the public API: what it can do, curl can do. Its policy lets it load nothing from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kalam.engine import Caller, Engine
from kalam.errors import NotFound
from kalam.schema import Table
from kalam.sql_words import FUNCTIONS, KEYWORDS
from kalam.threads import Purpose, in_thread
from kalam_http.bodies import JSON
from kalam_http.console_files import ConsoleFile, ConsoleFiles
from kalam_http.identity import caller_of
from kalam_http.routes import Routes

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
GZIP_BYTES_MIN: Final = 1_000


def console_routes(engine: Engine, overview: Callable[[], dict[str, Any]]) -> Routes:
    """The routes of the console; ``overview`` gives the document of ``/v1/overview``."""
    routes = Routes("Console")
    files = ConsoleFiles()
    catalogue = CatalogueDocument()

    @routes.get("/", summary="The web console", operation_id="console")
    async def index(request: Request) -> Response:
        """Answer the console's page."""
        return await _file(request, files, "index.html")

    @routes.get(
        "/console/{name}",
        summary="A file of the console",
        operation_id="console_file",
        path_parameters={"name": "the file's name"},
    )
    async def file(request: Request) -> Response:
        """Answer a script, a style sheet, the manual's pages or the data of the demo."""
        return await _file(request, files, request.path_params["name"])

    @routes.get("/llms.txt", summary="What an agent must know", operation_id="llms")
    async def llms(request: Request) -> Response:
        """Answer, in some sixty lines of plain text, how to use this server."""
        return await _file(request, files, "llms.txt")

    @routes.get("/v1/overview", summary="The last 15 minutes", operation_id="overview")
    async def overview_document(_: Request) -> Response:
        """Answer `{"every_s", "at": [times], "series": {name: [values]}}`: a sample every 5 s, the oldest first."""
        return Response(msgspec.json.encode(overview()), media_type=JSON, headers={"Cache-Control": "no-store"})

    @routes.get("/v1/catalogue", summary="Names, for completion", operation_id="catalogue")
    async def catalogue_document(request: Request) -> Response:
        """Answer all namespaces, tables and columns, functions and keywords; 304 where `If-None-Match` still holds."""
        etag, body = catalogue.newest(caller_of(engine, request))
        return _answer(request, body, JSON, etag)

    return routes


async def _file(request: Request, files: ConsoleFiles, name: str) -> Response:
    found: ConsoleFile | None = await in_thread(Purpose.FILES, files.find, name)
    if found is None:
        raise NotFound(f"the console has no file {name[:80]!r}")
    packed = found.packed if len(found.body) >= GZIP_BYTES_MIN and _takes_gzip(request) else None
    return _answer(request, found.body, found.media_type, found.etag, packed)


def _takes_gzip(request: Request) -> bool:
    accepted = request.headers.get("accept-encoding", "")
    return any(part.strip().partition(";")[0] == "gzip" for part in accepted.split(","))


def _answer(request: Request, body: bytes, media_type: str, etag: str, packed: bytes | None = None) -> Response:
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",  # kept, and asked about each time
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Encoding",
    }
    if etag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if packed is not None:
        headers["Content-Encoding"] = "gzip"
    return Response(packed or body, headers={**headers, "Content-Type": media_type})


class CatalogueDocument:
    """What completion needs, made anew when the catalogue has changed."""

    def __init__(self) -> None:
        self._state: object = None
        self._made = ("", b"")

    def newest(self, caller: Caller) -> tuple[str, bytes]:
        """The ETag and the body of what a caller may see."""
        namespaces, tables = caller.namespaces(), caller.tables()
        state = (namespaces, [(table.table_id, table.schema_version) for table in tables])
        if state != self._state:
            body = msgspec.json.encode(_document(namespaces, tables))
            self._made = (f'"{hashlib.sha256(body).hexdigest()[:20]}"', body)
            self._state = state
        return self._made


def _document(namespaces: Sequence[str], tables: Sequence[Table]) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sorted(namespaces)}
    for table in sorted(tables, key=lambda table: table.name):
        columns = [
            {"name": column.name, "type": str(column.type), "key": column.name == table.key} for column in table.columns
        ]
        found[table.name.namespace].append({"name": table.name.table, "kind": table.kind.value, "columns": columns})
    return {
        "namespaces": [{"name": name, "tables": own} for name, own in found.items()],
        "functions": FUNCTIONS,
        "keywords": KEYWORDS,
    }
