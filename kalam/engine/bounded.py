"""What a statement reads of the rows that it is to change, within the bounds on changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from kalam.engine.session import Request
from kalam.errors import TooLarge
from kalam.query.executor import Wanted
from kalam.query.own import Own
from kalam.query.queries import Queries
from kalam.query.results import TooManyBytes, TooManyRows
from kalam.settings import Settings
from kalam.sql.text.statements import QueryText


@contextmanager
def bounds_named(settings: Settings) -> Iterator[None]:
    """Tell of a bound on results as the bound on changes that it is here."""
    try:
        yield
    except TooManyRows as exc:
        raise TooLarge(
            f"the statement would change more than {settings.statement_rows_max} rows (setting statement_rows_max)"
        ) from exc
    except TooManyBytes as exc:
        raise TooLarge(
            f"the statement would change more than {settings.statement_change_bytes_max} bytes of rows "
            "(setting statement_change_bytes_max)"
        ) from exc


async def read_within(queries: Queries, settings: Settings, query: QueryText, own: Own, request: Request) -> pa.Table:
    """The rows of a query that is written around a statement's text; raises TooLarge."""
    session = request.session
    wanted = Wanted(
        user=session.user, rows_max=settings.statement_rows_max, bytes_max=settings.statement_change_bytes_max
    )
    with bounds_named(settings):
        return await queries.run_around(query, own, session.namespace, request.parameters, wanted)
