"""The web console at ``/``, and the two routes that were added for it.

The console is files and the public API: what it can do, curl can do. Its policy lets it load nothing from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kalam.access.model import Privilege
from kalam.access.opened import Access
from kalam.engine import Caller, Engine, Identity
from kalam.errors import NotFound
from kalam.names import TableName
from kalam.schema import Table
from kalam.sql_words import FUNCTIONS, KEYWORDS
from kalam.threads import Purpose, in_thread
from kalam_http.bodies import JSON
from kalam_http.console_files import ConsoleFile, ConsoleFiles
from kalam_http.identity import USER_HEADER, Entrance, caller_of, identity_of
from kalam_http.routes import Routes

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
GZIP_BYTES_MIN: Final = 1_000
DOCUMENTS_MAX: Final = 64
"""Users whose catalogue is kept."""
ROWS: Final = (Privilege.SELECT, Privilege.INSERT, Privilege.UPDATE, Privilege.DELETE)
OverviewDocument = Callable[[Collection[TableName] | None], dict[str, Any]]


def console_routes(engine: Engine, overview: OverviewDocument, entrance: Entrance) -> Routes:
    """The routes of the console; ``overview`` gives the document of ``/v1/overview``, whole or for some tables."""
    routes = Routes("Console")
    files = ConsoleFiles()
    catalogue = CatalogueDocument(entrance)

    @routes.get("/", summary="The web console", operation_id="console", strangers=True)
    async def index(request: Request) -> Response:
        """Answer the console's page."""
        return await _file(request, files, "index.html")

    @routes.get(
        "/console/{name}",
        summary="A file of the console",
        operation_id="console_file",
        path_parameters={"name": "the file's name"},
        strangers=True,
    )
    async def file(request: Request) -> Response:
        """Answer a script, a style sheet, the manual's pages or the data of the demo."""
        return await _file(request, files, request.path_params["name"])

    @routes.get("/llms.txt", summary="What an agent must know", operation_id="llms", strangers=True)
    async def llms(request: Request) -> Response:
        """Answer, in some sixty lines of plain text, how to use this server."""
        return await _file(request, files, "llms.txt")

    @routes.get("/v1/overview", summary="The last 15 minutes", operation_id="overview")
    async def overview_document(request: Request) -> Response:
        """Answer `{"every_s", "at": [times], "series": {name: [values]}}`: a sample every 5 s, the oldest first.

        While authentication is on, only administrators are told of the whole server, others of the tables they see,
        but for those of which policies hide rows and that are not their own.
        """
        identity = identity_of(request)
        tables = caller_of(engine, request).counted() if not entrance.administers(identity) else None
        document = overview(None if tables is None else frozenset(table.name for table in tables))
        return Response(msgspec.json.encode(document), media_type=JSON, headers={"Cache-Control": "no-store"})

    @routes.get("/v1/catalogue", summary="Names, for completion", operation_id="catalogue")
    async def catalogue_document(request: Request) -> Response:
        """Answer all namespaces, tables and columns, functions and keywords; 304 where `If-None-Match` still holds.

        While authentication is on, `may` says which of SELECT, INSERT, UPDATE and DELETE the caller may do on a table,
        `owns` whether to alter and drop it, `row_security` that policies decide over its rows, `may_create` whether to
        create tables in a namespace.
        """
        etag, body = catalogue.newest(caller_of(engine, request), identity_of(request))
        answer = _answer(request, body, JSON, etag)
        answer.headers["Cache-Control"] = "private, no-cache"
        answer.headers["Vary"] = f"Authorization, Cookie, {USER_HEADER}"
        return answer

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
    """What completion needs, made anew for a user when what there is, or what the user may do, has changed."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._made: OrderedDict[tuple[str, str], tuple[object, str, bytes]] = OrderedDict()

    def newest(self, caller: Caller, identity: Identity) -> tuple[str, bytes]:
        """The ETag and the body of what a caller may see."""
        namespaces, tables = caller.namespaces(), caller.tables()
        access = self._entrance.access
        generation = 0 if access is None else access.book.generation
        state = (generation, namespaces, [(table.table_id, table.schema_version, table.owned_by) for table in tables])
        user = identity.user, identity.rights_of
        made = self._made.pop(user, None)
        if made is None or made[0] != state:
            body = msgspec.json.encode(_document(namespaces, tables, access, identity.rights_of))
            made = state, f'"{hashlib.sha256(body).hexdigest()[:20]}"', body
        self._made[user] = made
        if len(self._made) > DOCUMENTS_MAX:
            self._made.popitem(last=False)
        return made[1:]


def _document(namespaces: Sequence[str], tables: Sequence[Table], access: Access | None, user: str) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sorted(namespaces)}
    for table in sorted(tables, key=lambda table: table.name):
        columns = [
            {"name": column.name, "type": str(column.type), "key": column.name in table.key} for column in table.columns
        ]
        found[table.name.namespace].append(
            {
                "name": table.name.table,
                "kind": table.kind.value,
                "columns": columns,
                **_allowed(table, access, user),
            }
        )
    return {
        "namespaces": [
            {"name": name, "tables": own}
            | ({} if access is None else {"may_create": access.rights.may_create(user, name)})
            for name, own in found.items()
        ],
        "functions": FUNCTIONS,
        "keywords": KEYWORDS,
    }


def _allowed(table: Table, access: Access | None, user: str) -> dict[str, Any]:
    """What a user may do on a table; nothing is said where everybody may do everything."""
    if access is None:
        return {}
    rights = access.rights
    found = {"may": [name for name in ROWS if rights.may(user, name, table)], "owns": rights.owns(user, table)}
    return found | ({"row_security": True} if table.row_security else {})
