"""A real PostgreSQL 15 where one is installed, to which answers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from kalam.bench.real_postgres import NoPostgres, RealPostgres, find_postgres


@contextmanager
def real_postgres() -> Iterator[psycopg.Connection]:
    """A connection to one; skips where there is none, and where it is another version."""
    try:
        programs = find_postgres()
    except NoPostgres as exc:
        pytest.skip(f"no PostgreSQL to compare with: {exc}")
    with RealPostgres(programs, 10) as real:
        if not real.version.startswith("PostgreSQL 15"):
            pytest.skip(f"compared with PostgreSQL 15, and this is {real.version}")
        url = real.url.replace("//", "//bench@") + "/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
