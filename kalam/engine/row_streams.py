"""The rows of one statement as a stream, for results that are larger than an answer should be."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pyarrow as pa

from kalam.engine.facade import Engine
from kalam.engine.session import Session
from kalam.errors import KalamError, SyntaxFault, Unsupported
from kalam.names import check_user
from kalam.sql.queries.readers import postgresql_names
from kalam.sql.text.named_places import locate
from kalam.sql.text.statements import Select
from kalam.threads import reading
from kalam.tracing import span


async def stream_rows(
    engine: Engine,
    text: str,
    params: Sequence[Any] = (),
    session: Session = Session(),  # noqa: B008 - frozen
) -> AsyncGenerator[pa.Table, None]:
    """The rows of a text with one statement, as tables of one schema, at least one.

    A SELECT is read while it is sent and has no bound in rows; any other statement is carried out first.
    """
    check_user(session.user)
    parsed = await engine.texts.split(text)
    statements = parsed.texts
    if not statements:
        raise SyntaxFault("the text holds no statement")
    if len(statements) > 1:
        raise Unsupported(
            f"a streamed answer has the rows of one statement, and the text holds {len(statements)}",
            hint="ask for application/json, or send one statement",
        )
    try:
        statement = await engine.texts.statement(parsed, 0, session.user)
        if isinstance(statement, Select):
            found = engine.queries.stream(statement.query, session.user, session.namespace, params)
            names: list[str] | None = None
            # How long it takes is up to the reader.
            with engine.sql_counts.one(timed=False), span("kalam.sql", apart=True):
                async with aclosing(found) as tables:
                    async for table in tables:
                        if session.postgresql_names and names is None:
                            text = statement.query.text
                            names = await reading(text, postgresql_names, statement.query, table.column_names)
                        yield table if names is None else table.rename_columns(names)
            return
    except KalamError as exc:
        locate(exc, statements[0])
        exc.fields["statement"] = 1
        raise
    (result,) = await engine.execute(text, params, session)
    yield pa.table({}) if result.data is None else result.data
