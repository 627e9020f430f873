"""``connect``, and what one can do with the connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from http.client import HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kalam.client.answers import Answer, Description
from kalam.client.inserter import Inserter
from kalam.client.link import Link
from kalam.client.live import LiveRows
from kalam.client.streamed import ARROW_STREAM, NDJSON, Address, Item, Streamed, batch_pieces, row_pieces
from kalam.client.values import plain
from kalam.client.whereabouts import found_by_http
from kalam.credentials import Credentials, find_credentials
from kalam.errors import InvalidOption, InvalidValue
from kalam.names import NAME_PATTERN
from kalam.urls import tls_options

if TYPE_CHECKING:
    from pyarrow import RecordBatch

LINGER_S = 0.002
TIMEOUT_S = 30.0
CONNECT_S = 10.0


@asynccontextmanager
async def connect(
    url: str = "nats://127.0.0.1:4222",
    *,
    user: str | None = None,
    password: str | None = None,
    password_file: Path | str | None = None,
    token: str | None = None,
    namespace: str | None = None,
    prefix: str = "kalam",
    linger_s: float = LINGER_S,
    timeout_s: float = TIMEOUT_S,
    http_url: str | None = None,
    **nats_options: Any,
) -> AsyncIterator[Kalam]:
    """Connect to a Kalam server through its NATS while the block runs.

    Args:
        url: the broker, Kalam's own or an outside one: ``nats://``, ``tls://``, ``ws://``; or the server itself,
            ``http://``, which says where its broker is.
        user: who logs in, or with authentication off as whom. Left out it is KALAM_USER, whom the URL or a login of
            ``kalam login`` names, or ``admin``.
        password: what they log in with. Where neither it nor the next two are given it is what the URL holds,
            KALAM_TOKEN, KALAM_PASSWORD, or what ``kalam login`` keeps for this server.
        password_file: a file with the password.
        token: in its place; where ``url`` is a broker's it needs its ``user`` too.
        namespace: where tables without a namespace are looked up.
        prefix: the server's setting ``subject_prefix``.
        linger_s: how long an insert waits for others to share its message.
        timeout_s: how long a request may take, reconnects included, before it fails.
        http_url: where the server answers HTTP, over which ``stream`` and ``batches`` come; without it the server is
            asked.
        nats_options: what nats-py's ``connect`` takes besides (``user_credentials``, ``tls``, …).

    Raises Unauthenticated where the login is refused, BrokerUnavailable if there is no connection in time.
    """
    file = None if password_file is None else Path(password_file)
    urls = [url, *filter(None, [http_url])]
    login = find_credentials(urls, user=user, password=password, password_file=file, token=token)
    connection = logged_in(
        url,
        login,
        namespace=namespace,
        prefix=prefix,
        linger_s=linger_s,
        timeout_s=timeout_s,
        http_url=http_url,
        nats_options=_tls() | nats_options,
    )
    async with connection as kalam:
        yield kalam


@asynccontextmanager
async def logged_in(
    url: str,
    login: Credentials,
    *,
    namespace: str | None = None,
    prefix: str = "kalam",
    linger_s: float = LINGER_S,
    timeout_s: float = TIMEOUT_S,
    http_url: str | None = None,
    nats_options: dict[str, Any],
) -> AsyncIterator[Kalam]:
    """The same for who has credentials already."""
    if url.startswith(("http://", "https://")):
        http_url = http_url or url
        url, named = await asyncio.to_thread(found_by_http, url, login, min(timeout_s, CONNECT_S))
        login = msgspec.structs.replace(login, user=named, in_address=False)
    elif login.is_nameless:
        raise InvalidOption("NATS does not tell whose token this is", hint="connect(…, user=…, token=…), or KALAM_USER")
    link = Link(url, nats_options, login)
    await link.open(min(timeout_s, CONNECT_S))
    kalam = Kalam(link, login, namespace, prefix, linger_s, timeout_s, http_url)
    try:
        yield kalam
    finally:
        await kalam.drain()
        await link.close()


def _tls() -> dict[str, Any]:
    try:
        return tls_options()
    except ValueError as exc:
        raise InvalidOption(str(exc)) from exc


class Kalam:
    """A connection to a Kalam server. Made by ``connect``."""

    def __init__(
        self,
        link: Link,
        login: Credentials,
        namespace: str | None,
        prefix: str,
        linger_s: float,
        timeout_s: float,
        http_url: str | None = None,
    ) -> None:
        self._link, self._login, self._namespace, self._prefix = link, login, namespace, prefix
        self._user = login.name
        self._linger_s, self._timeout_s, self._http_url = linger_s, timeout_s, http_url
        self._inserters: dict[str, Inserter] = {}

    async def insert(self, table: str, rows: Any) -> int:
        """Insert rows and return how many, once they are durable.

        Args:
            table: ``namespace.table``, or ``table`` in the connection's namespace.
            rows: one row or an iterable of rows (dictionaries, dataclasses, msgspec structs), an Arrow table or record
                batch, or a frame of pandas or polars. Up to 1,000 rows and 256 KiB are stored all or none; more are
                split, into messages that the broker takes. Values may be numpy's and pandas' scalars.

        Raises the error that the server answered (``kalam.errors``), and BrokerUnavailable if none came in time.
        """
        name = self._full_name(table)
        inserter = self._inserters.get(name)
        if inserter is None:
            subject = f"{self._prefix}.api.{self._user}.insert.{name}"
            inserter = self._inserters[name] = Inserter(self._link, subject, self._linger_s, self._timeout_s)
        return await inserter.insert(rows)

    async def sql(
        self,
        text: str,
        params: Sequence[Any] = (),
        *,
        namespace: str | None = None,
        names: Literal["postgresql"] | None = None,
    ) -> Answer:
        """Run statements and return the answer of the last one; ``params`` are the values of ``$1 …``.

        With ``names="postgresql"`` columns without a name are called as PostgreSQL calls them, for people; several may
        then have one name. Raises the error of the first statement that failed. A statement whose answer is lost is not
        sent again.
        """
        return Answer.last_of(await self._ask(self._question(text, params, namespace, names)))

    async def execute_many(self, text: str, rows: Iterable[Sequence[Any]], *, namespace: str | None = None) -> int:
        """Carry out an INSERT … VALUES for each of many rows of parameters, as one statement: all of them or none.

        Returns how many rows were inserted. The request has to fit one message of the broker.
        """
        body = self._body(text, namespace, lambda: {"rows": [[_param(value) for value in row] for row in rows]})
        return Answer.last_of(await self._ask(body)).row_count

    async def describe(self, text: str, *, namespace: str | None = None) -> Description:
        """The parameters of one statement and the columns that it gives, without running it."""
        return Description.of(await self._ask(self._body(text, namespace, lambda: {"describe": True})))

    async def _ask(self, body: bytes) -> bytes:
        subject = f"{self._prefix}.api.{self._user}.sql"
        return await self._link.ask_in_parts(subject, body, timeout_s=self._timeout_s)

    def stream(
        self, text: str, params: Sequence[Any] = (), *, namespace: str | None = None
    ) -> Streamed[dict[str, Any]]:
        """The rows of one statement, however many, in bounded memory: ``async for row in k.stream("SELECT …")``.

        They come over HTTP while the server finds them, without the bound ``result_rows_max``, as ``Answer.rows`` shows
        them. Raises the error that ended the query, and BrokerUnavailable where the answer breaks off.
        """
        return self._streamed(NDJSON, row_pieces, text, params, namespace)

    def batches(self, text: str, params: Sequence[Any] = (), *, namespace: str | None = None) -> Streamed[RecordBatch]:
        """The same rows as Arrow record batches, each with at least one row; raises ImportError without pyarrow too."""
        return self._streamed(ARROW_STREAM, batch_pieces, text, params, namespace)

    def _streamed(
        self,
        form: str,
        pieces: Callable[[HTTPResponse], Iterator[list[Item]]],
        text: str,
        params: Sequence[Any],
        namespace: str | None,
    ) -> Streamed[Item]:
        headers = {"Content-Type": "application/json", "Accept": form, **self._login.headers()}
        return Streamed(self._address, self._question(text, params, namespace, None), headers, pieces)

    async def _address(self) -> Address:
        if self._http_url is not None:
            return Address(self._http_url, None)
        return await self._link.http_address(self._prefix, min(self._timeout_s, 5.0))

    def _question(
        self, text: str, params: Sequence[Any], namespace: str | None, names: Literal["postgresql"] | None
    ) -> bytes:
        return self._body(text, namespace, lambda: {"params": [_param(value) for value in params], "names": names})

    def _body(self, text: str, namespace: str | None, members: Callable[[], dict[str, Any]]) -> bytes:
        try:
            return msgspec.json.encode({"sql": text, "namespace": namespace or self._namespace, **members()})
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise InvalidValue(f"a parameter cannot be sent: {exc}") from exc

    def live(
        self,
        sql: str,
        *,
        last_rows: int | None = None,
        from_seq: int | None = None,
        from_time: datetime | None = None,
        table_id: int | None = None,
        token: str | None = None,
        key: str | Sequence[str] | None = None,
        follow: bool = True,
    ) -> LiveRows:
        """The rows of ``SELECT … FROM ns.t WHERE …``, and then every change of them, as an asynchronous iterator.

        A task that is cancelled while it waits for the next change ends the live query; ``token`` is where to go on.

        Args:
            sql: one table (with its namespace), columns or ``*``, a WHERE.
            last_rows: begin with only so many of the rows, those that changed last; None for all that match.
            from_seq: begin behind a change that was seen earlier.
            from_time: begin with the events of a STREAM table from a time on; without a zone it is this machine's.
            table_id: of which table that change was.
            token: the same two as one text, as ``LiveRows.token`` gave it.
            key: the selected column that tells the rows apart, or those that do together; then ``LiveRows.rows`` is the
                result as it is now.
            follow: False for the rows as they are now, all of one moment, and nothing after them.
        """
        if token is not None:
            table_id, from_seq = _read_token(token)
        return LiveRows(
            self._link,
            self._prefix,
            self._user,
            sql,
            last_rows=last_rows,
            from_seq=from_seq,
            from_time=from_time,
            table_id=table_id,
            key=key,
            follow=follow,
            timeout_s=min(self._timeout_s, 10.0),
        )

    async def drain(self) -> None:
        """Send the rows that linger and wait for their answers."""
        for inserter in self._inserters.values():
            await inserter.drain()

    def _full_name(self, table: str) -> str:
        name = table if "." in table or not self._namespace else f"{self._namespace}.{table}"
        parts = name.split(".")
        if len(parts) != 2 or not all(NAME_PATTERN.fullmatch(part) for part in parts):
            raise InvalidValue(f"{table!r} is no table: give it as namespace.table")
        return name


def _param(value: Any) -> Any:
    """A parameter as JSON carries it: NaN and the infinities, of which JSON knows nothing, as their texts."""
    value = _own(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return _json(value)


def _json(value: Any) -> Any:
    value = _own(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue("a JSON parameter cannot hold NaN or an infinity")
    if isinstance(value, dict):
        return {name: _json(member) for name, member in value.items()}
    return [_json(member) for member in value] if isinstance(value, list | tuple) else value


def _own(value: Any) -> Any:
    return plain(value) if type(value).__module__.partition(".")[0] in ("numpy", "pandas") else value


def _read_token(token: str) -> tuple[int, int]:
    table_id, dash, seq = token.partition("-")
    if not (dash and table_id.isdecimal() and seq.isdecimal()):
        raise InvalidValue(f"{token[:60]!r} is no resume token; one is <table_id>-<seq>")
    return int(table_id), int(seq)
