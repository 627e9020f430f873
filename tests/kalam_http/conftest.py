"""A real HTTP server on a free port around a small engine, which does on demand what a whole one does rarely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import httpx
import pyarrow
import pytest
from patience import PATIENCE_S
from prometheus_client import CollectorRegistry

from kalam.engine import Check, Departure, Engine, Session
from kalam.errors import KalamError, TableNotFound
from kalam.query.results import Result, ResultColumn
from kalam.settings import Settings
from kalam_http import create_app, serve_http

BODY_BYTES_MAX = 4096


class SmallEngine:
    """Executes a word as told by ``answers``, anything else as ``SELECT 1 AS one``; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Any], str, str | None]] = []
        self.answers: dict[str, list[Result] | Exception] = {}
        self.checks = [Check("sqlite", ok=True, detail="writable"), Check("nats", ok=True, detail="connected")]
        self.released = asyncio.Event()

    def caller(
        self,
        session: Session,
        door: str,
        *,
        request_id: str | None = None,
        departure: Departure | None = None,
    ) -> SmallCaller:
        assert door == "http"
        return SmallCaller(self, session)

    async def health(self) -> list[Check]:
        return self.checks


class SmallCaller:
    """One request to it."""

    def __init__(self, engine: SmallEngine, session: Session) -> None:
        self._engine, self._session = engine, session

    async def execute(self, text: str, params: Sequence[Any] = ()) -> list[Result]:
        self._engine.asked.append((text, list(params), self._session.user, self._session.namespace))
        if text == "wait":
            await self._engine.released.wait()
        answer = self._engine.answers.get(text, [numbers("one", [1])])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def look(self, text: str, params: Sequence[Any]) -> bytes | None:
        return None


def numbers(name: str, values: list[int | None]) -> Result:
    data = pyarrow.Table.from_arrays([pyarrow.array(values, pyarrow.int64())], names=[name])
    return Result(columns=(ResultColumn(name, "BIGINT"),), data=data, row_count=len(values), message=None)


@pytest.fixture
def engine() -> SmallEngine:
    engine = SmallEngine()
    engine.answers["big"] = [numbers("n", [2**53 + 1, None, -(2**63)])]
    engine.answers["boom"] = RuntimeError("a secret of the server")
    engine.answers["missing"] = TableNotFound(
        "there is no table a.b", statement=2, line=3, column=7, hint="SHOW TABLES", results=[numbers("one", [1])]
    )
    engine.answers["done"] = [Result(columns=(), data=None, row_count=3, message="3 rows inserted")]
    return engine


@pytest.fixture
def settings() -> Settings:
    return Settings(http_port=0, statement_bytes_max=BODY_BYTES_MAX, broker_timeout_s=0.2)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def http(
    engine: SmallEngine, settings: Settings, registry: CollectorRegistry
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server."""
    app = create_app(
        cast("Engine", engine), settings=settings, registry=registry, overview=lambda _: {}, identity={"id": "mine"}
    )
    async with (
        serve_http(app, settings) as listening,
        httpx.AsyncClient(base_url=listening.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


@pytest.fixture
def every_error() -> list[type[KalamError]]:
    """Every class of error that has a code."""
    classes, found = [KalamError], []
    while classes:
        error = classes.pop()
        classes += error.__subclasses__()
        if "code" in vars(error) and error.__module__ == "kalam.errors":
            found.append(error)
    return found
