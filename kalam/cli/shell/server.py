"""The server that a shell speaks to: over HTTP, or over NATS where only that is reachable."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from kalam.cli.address import Address
from kalam.cli.connection import connected
from kalam.cli.failure import CommandFailed
from kalam.cli.http import Refusal, ask_sql, cancel_query, get_json, live_events
from kalam.credentials import Credentials
from kalam.urls import redacted

if TYPE_CHECKING:  # the client imports NATS, which the shell does only where it is asked for
    import asyncio

    from kalam.client import Change, LiveRows
    from kalam.client.kalam import Kalam
    from kalam.errors import KalamError


class Server(Protocol):
    """What the shell needs of a server."""

    name: str

    def http_url(self) -> str:
        """Where it answers HTTP; raises CommandFailed."""

    def run(self, text: str, namespace: str | None) -> list[dict[str, Any]]:
        """The results of one statement; raises Refusal. ^C cancels it on the server and passes on."""

    def catalogue(self) -> dict[str, Any]:
        """What completion needs, as ``GET /v1/catalogue`` answers it."""

    def live(self, text: str) -> contextlib.AbstractContextManager[Iterator[dict[str, Any]]]:
        """The messages of a live query, until it ends or ^C; raises Refusal."""


class HttpServer:
    """A server by its HTTP API."""

    def __init__(self, url: str, login: Credentials) -> None:
        self.name, self._url, self._login = url, url, login

    def http_url(self) -> str:
        """See Server."""
        return self._url

    def run(self, text: str, namespace: str | None) -> list[dict[str, Any]]:
        """See Server."""
        query_id = f"shell-{uuid.uuid4().hex}"
        try:
            body = ask_sql(self._url, text, login=self._login, namespace=namespace, query_id=query_id, for_people=True)
        except KeyboardInterrupt:
            with contextlib.suppress(CommandFailed):
                cancel_query(self._url, query_id, login=self._login)
            raise
        results: list[dict[str, Any]] = json.loads(body)["results"]
        return results

    def catalogue(self) -> dict[str, Any]:
        """See Server."""
        return get_json(self._url, "/v1/catalogue", login=self._login)

    def live(self, text: str) -> contextlib.AbstractContextManager[Iterator[dict[str, Any]]]:
        """See Server."""
        return live_events(self._url, text, login=self._login)


class NatsServer:
    """A server by its NATS subjects, with the Python client."""

    def __init__(self, where: Address, prefix: str) -> None:
        self._url = where.nats_url()
        self.name = redacted(self._url)
        self._where, self._prefix = where, prefix

    def http_url(self) -> str:
        """See Server."""
        return self._where.http_url(self._prefix)

    def run(self, text: str, namespace: str | None) -> list[dict[str, Any]]:
        """See Server. ^C ends the wait, and the query, which is known by its text in ``system.queries``."""
        import asyncio

        from kalam.errors import KalamError

        try:
            return asyncio.run(self._ask(text, namespace))
        except KalamError as exc:
            raise _refusal(exc) from exc
        except KeyboardInterrupt:
            with contextlib.suppress(KalamError):
                asyncio.run(self._kill(text))
            raise

    async def _ask(self, text: str, namespace: str | None) -> list[dict[str, Any]]:
        async with self._connect() as kalam:
            answer = await kalam.sql(text, namespace=namespace, names="postgresql")
        columns = [{"name": name, "type": kind} for name, kind in answer.columns]
        rows, count, message = list(answer.values), answer.row_count, answer.message
        return [{"columns": columns, "rows": rows, "row_count": count, "message": message}]

    async def _kill(self, text: str) -> None:
        own = "SELECT query_id FROM system.queries WHERE user_id = $1 AND sql = $2 AND door = 'nats'"
        async with self._connect() as kalam:
            for row in (await kalam.sql(own, [self._where.login.name, text])).rows:
                await kalam.sql(f"KILL QUERY '{row['query_id']}'")

    def _connect(self) -> contextlib.AbstractAsyncContextManager[Kalam]:
        return connected(self._where, self._url, self._prefix)

    def catalogue(self) -> dict[str, Any]:
        """See Server: made of the system tables, which are all that NATS gives."""
        from kalam.sql_words import FUNCTIONS, KEYWORDS

        (spaces,) = self.run("SELECT namespace FROM system.namespaces", None)
        (columns,) = self.run(
            "SELECT t.namespace, t.table_name, t.table_type, c.column_name, c.data_type, c.is_primary_key "
            "FROM system.tables t JOIN system.columns c USING (namespace, table_name) ORDER BY 1, 2, c.ordinal",
            None,
        )
        tables: dict[str, dict[str, dict[str, Any]]] = {space: {} for (space,) in spaces["rows"]}
        for space, name, kind, column, data_type, key in columns["rows"]:
            table = tables.setdefault(space, {}).setdefault(name, {"name": name, "kind": kind, "columns": []})
            table["columns"].append({"name": column, "type": data_type, "key": key})
        return {
            "namespaces": [{"name": space, "tables": list(own.values())} for space, own in tables.items()],
            "functions": FUNCTIONS,
            "keywords": KEYWORDS,
        }

    @contextlib.contextmanager
    def live(self, text: str) -> Iterator[Iterator[dict[str, Any]]]:
        """See Server."""
        import asyncio

        from kalam.errors import KalamError

        with asyncio.Runner() as runner:
            client = self._connect()
            kalam = runner.run(client.__aenter__())
            try:
                yield _messages(runner, kalam.live(text))
            except KalamError as exc:
                raise _refusal(exc) from exc
            finally:
                runner.run(client.__aexit__(None, None, None))


def _messages(runner: asyncio.Runner, changes: LiveRows) -> Iterator[dict[str, Any]]:
    """The changes of the client as the messages that a live query has."""

    async def following() -> Change | None:
        return await anext(changes, None)

    while (change := runner.run(following())) is not None:
        if change.op == "snapshot":
            yield {"type": "snapshot", "rows": [change.row]}
        else:
            yield {"type": "changes", "changes": [{"op": change.op, "row": change.row, "old": change.old}]}


def _refusal(error: KalamError) -> Refusal:
    return Refusal({**error.fields, "code": error.code, "detail": error.detail})
