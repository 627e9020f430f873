"""SQL over one HTTP connection that stays open, as a program's client has it, and how long each answer took."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from kalam.cli.failure import CommandFailed
from kalam.cli.problem_text import problem_text
from kalam.credentials import NOBODY, Credentials

QUIET_S_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """The rows of the last statement, the milliseconds that the client waited and those that the server counted."""

    rows: list[list[Any]]
    wall_ms: float
    took_ms: float


class HttpSql:
    """A client of ``POST /v1/sql``. Use it as a context manager."""

    def __init__(self, url: str, login: Credentials = NOBODY) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port)
        self._headers = {"Content-Type": "application/json", **login.headers()}
        self._used_at = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def run(self, text: str) -> SqlAnswer:
        """Run statements; raises CommandFailed if one fails."""
        body = json.dumps({"sql": text}).encode()
        try:
            self._connect()
            started = time.perf_counter()
            self._connection.request("POST", "/v1/sql", body, self._headers)
            response = self._connection.getresponse()
            payload = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise CommandFailed(f"error: the server did not answer: {exc or type(exc).__name__}") from exc
        self._used_at = time.perf_counter()
        wall_ms = (self._used_at - started) * 1e3
        answer = json.loads(payload)
        if response.status != 200:
            raise CommandFailed(f"{problem_text(answer)}\nThe statement was: {text}")
        return SqlAnswer(answer["results"][-1]["rows"], wall_ms, answer["took_ms"])

    def _connect(self) -> None:
        """Open a new connection unless the last was just used: a server closes one that is quiet for some seconds."""
        if time.perf_counter() - self._used_at > QUIET_S_MAX:
            self._connection.close()
            self._connection.connect()

    def count(self, table: str) -> int:
        """How many rows the table has."""
        return int(self.run(f"SELECT COUNT(*) FROM {table}").rows[0][0])  # noqa: S608 - our own table
