"""What is sent to the API and what comes back, as types: the decoder and /openapi.json are both made from these.

msgspec decodes and validates it in one pass; pydantic takes part in no request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request

from kalam.errors import InvalidValue, SyntaxFault, Unsupported

JSON = "application/json"
Decoded = TypeVar("Decoded")


class SqlRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One or more SQL statements, separated by semicolons."""

    sql: Annotated[str, Meta(description="the statements", examples=["SELECT 1 AS one"])]
    params: Annotated[list[Any], Meta(description="values of $1 … $n; bound as values, never as text")] = []
    rows: Annotated[
        list[list[Any]] | None,
        Meta(description="instead of `params`: an INSERT … VALUES is carried out for each, all of them or none"),
    ] = None
    describe: Annotated[
        bool,
        Meta(description="nothing is run: the answer says what the one statement asks for and gives"),
    ] = False
    namespace: Annotated[str | None, Meta(description="where a table named without a namespace is looked up")] = None
    names: Annotated[
        Literal["postgresql"] | None,
        Meta(
            description="`postgresql`: a column without a name is called as PostgreSQL calls it, `count` or `?column?`"
        ),
    ] = None
    integers: Annotated[
        Literal["number", "text"],
        Meta(description="`text`: BIGINT values are shown as text, as with `Accept: application/json; integers=text`"),
    ] = "number"


class LoginRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who logs in."""

    user: str
    password: Annotated[str, Meta(description="the password, or a token")]


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks."""

    user: Annotated[str, Meta(description="as whom statements run")]
    actor: Annotated[str | None, Meta(description="the administrator who acts for the user")] = None
    roles: Annotated[list[str], Meta(description="the user's roles, directly and through others")]
    admin: Annotated[bool, Meta(description="whether the caller is an administrator")]
    how: Annotated[str | None, Meta(description="`password`, `token` or `session`; null while authentication is off")]
    authentication: Annotated[bool, Meta(description="whether the server asks who one is")]


class ResultColumn(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A column of a result and its type, as DESCRIBE TABLE spells it."""

    name: str
    type: str


class SqlResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What one statement answered. Without rows, ``row_count`` is the rows touched, and there is a ``message``."""

    columns: list[ResultColumn]
    rows: list[list[Any]]
    row_count: int
    message: str | None


class Described(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a statement asks for and gives: the answer to `"describe": true`."""

    kind: Annotated[str, Meta(examples=["SELECT", "INSERT"])]
    parameters: Annotated[list[ResultColumn], Meta(description="`$1 …`, and what each is bound as")]
    columns: Annotated[list[ResultColumn] | None, Meta(description="null where the answer has no rows")]
    writes: Annotated[bool, Meta(description="whether it changes anything")]
    many: Annotated[bool, Meta(description="whether it takes `rows`")]


class SqlAnswer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The results of all statements, in order."""

    results: list[SqlResult]
    took_ms: float


class RefusedRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A row that was refused alone, and why."""

    row: Annotated[int, Meta(description="number of the row in the body, from 1")]
    code: str
    detail: str


class RowsAnswer(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The rows of a body are stored. ``discarded`` are those of an EPHEMERAL table to which nobody listens."""

    rows: Annotated[int, Meta(description="how many rows were taken")]
    seq: Annotated[int | None, Meta(description="the number of the last change, or of the last event")] = None
    discarded: int = 0
    updated: Annotated[int | None, Meta(description="with on_conflict=update, rows that were there already")] = None
    skipped: Annotated[int | None, Meta(description="with on_conflict=nothing, rows that were there already")] = None
    refused: Annotated[int | None, Meta(description="with on_invalid=skip, rows that were refused")] = None
    errors: Annotated[list[RefusedRow] | None, Meta(description="the first 100 of them")] = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457). Further members may stand beside these."""

    type: Annotated[str, Meta(examples=["urn:kalam:error:table_not_found"])]
    title: str
    status: int
    detail: Annotated[str, Meta(description="what went wrong, where, and what to do")]
    code: Annotated[str, Meta(description="the stable name of the error")]
    statement: Annotated[int | None, Meta(description="number of the failed statement, from 1")] = None
    line: Annotated[int | None, Meta(description="line of the SQL text, from 1")] = None
    column: Annotated[int | None, Meta(description="column in that line, from 1")] = None
    hint: str | None = None
    stored: Annotated[
        int | str | None, Meta(description="rows of a bulk insert that are stored all the same, or `unknown`")
    ] = None
    row: Annotated[int | None, Meta(description="number of the row in the body, from 1")] = None
    results: Annotated[list[SqlResult] | None, Meta(description="what ran before the failed statement")] = None


class HealthCheck(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One thing that must work before the server is ready."""

    name: str
    ok: bool
    detail: str


class Readiness(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Whether the server can take requests, the checks that say so, and which server it is."""

    ready: bool
    checks: list[HealthCheck]
    server: Annotated[dict[str, str], Meta(description="its `id`, and as `nats_url` where it is found in NATS")] = {}


def check_content_type(request: Request, wanted: str) -> None:
    """Raise Unsupported unless the body is declared to be ``wanted``, with or without parameters such as a charset."""
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != wanted:
        found = f"{given[:80]!r}" if given else "none"
        raise Unsupported(f"{request.url.path} takes a body of Content-Type {wanted}, found {found}")


def decode_json(body: bytes, decoder: msgspec.json.Decoder[Decoded]) -> Decoded:
    """Decode a body strictly: SyntaxFault where it is no JSON, InvalidValue where it is the wrong JSON."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidValue(f"the body is not what this route takes: {exc}") from exc
    except RecursionError as exc:
        raise InvalidValue("the body is nested too deeply") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise SyntaxFault(f"the body is not valid JSON: {exc}") from exc
