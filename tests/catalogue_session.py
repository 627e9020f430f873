"""A session of the PostgreSQL door without the wire: it asks the catalogue as the door does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kalam.access.identity import Identity
from kalam.engine import Caller, Session
from kalam.server import Running, open_server
from kalam.settings import Settings
from kalam_pg.catalogue import Catalogue, CatalogueAnswer, CatalogueText, recognise
from kalam_pg.settings import SessionSettings

TABLES = """
CREATE NAMESPACE lab; CREATE NAMESPACE public;
CREATE SHARED TABLE lab.readings (sensor TEXT NOT NULL, celsius DOUBLE);
CREATE SHARED TABLE public.orders (
    id BIGINT PRIMARY KEY, customer VARCHAR(40) NOT NULL DEFAULT 'nobody', amount DECIMAL(10,2),
    at TIMESTAMP DEFAULT NOW(), doc JSON, flag BOOLEAN);
CREATE SHARED TABLE public.parts (plant TEXT, number INT, weight FLOAT, PRIMARY KEY (plant, number));
CREATE USER TABLE lab.notes (id UUID PRIMARY KEY, body TEXT);
CREATE STREAM TABLE lab.clicks (page TEXT, n SMALLINT, raw BLOB, d DATE);
COMMENT ON TABLE public.parts IS 'all of them';
COMMENT ON COLUMN public.orders.amount IS 'in euros'
"""
"""Tables of every kind and type; a PostgreSQL that judges has the like."""


class CatalogueSession:
    """Asks as one user; ``user`` None is whoever asks while authentication is off."""

    def __init__(self, running: Running, catalogue: Catalogue, user: str = "admin") -> None:
        self.running, self._catalogue = running, catalogue
        self.user, self.database, self.backend_pid = user, "kalam", 7
        self.client_address: str | None = "127.0.0.1"
        self.settings = SessionSettings({})
        self.temporary = running.engine.open_temporary(user)
        self.request_id: str | None = None

    @property
    def caller(self) -> Caller:
        session = Session(Identity(user=self.user))
        return self.running.engine.caller(session, "postgres", request_id=self.request_id)

    async def answer(self, text: str, *parameters: Any, declared: Sequence[int] = ()) -> CatalogueAnswer:
        return await self._catalogue.answer(recognised(text), self, parameters, declared)

    async def rows(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return (await self.answer(text, *parameters)).rows

    async def value(self, text: str, *parameters: Any) -> Any:
        ((found,),) = await self.rows(text, *parameters)
        return found


def recognised(text: str) -> CatalogueText:
    found = recognise(text)
    assert found is not None, f"this is about the catalogue: {text}"
    return found


@asynccontextmanager
async def catalogue_session(folder: Path) -> AsyncIterator[CatalogueSession]:
    """A session on a server of its own, with the tables from above."""
    async with open_server(Settings(data_dir=folder / "data", http_port=0, nats_port=0)) as running:
        await running.engine.caller(Session(), "test").execute(TABLES)
        catalogue = Catalogue(query_time_s=60, rows_max=100_000)
        yield CatalogueSession(running, catalogue)
        await catalogue.aclose()
