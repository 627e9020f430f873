"""The simple protocol: a text with any number of statements, carried out in order up to the first error."""

from __future__ import annotations

from kalam.sql import StatementText
from kalam_pg.session.commands import Copy
from kalam_pg.session.copies import Copies
from kalam_pg.session.executor import Executor
from kalam_pg.session.rows_out import send_rows
from kalam_pg.session.session import Session
from kalam_pg.session.statements import Portal, Prepared
from kalam_pg.wire import messages
from kalam_pg.wire.channel import Gone


async def run_text(session: Session, executor: Executor, copies: Copies, text: str) -> None:
    """Carry out a Query message, and say that the next may come."""
    statement: StatementText | None = None
    session.statements.pop("", None)
    if (unnamed := session.portals.pop("", None)) is not None:
        await unnamed.close()
    try:
        found = await executor.statements(text)
        if not found:
            session.write(messages.EMPTY_QUERY)
        for statement in found:
            prepared = await executor.read(text, statement)
            await _run(session, executor, copies, prepared)
            if len(found) == 1:
                await executor.keep(prepared)
    except Gone:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it was, the client is told, and its next query has its turn
        session.fail(exc, statement)
    session.ready()
    await session.drain()


def run_at_once(session: Session, executor: Executor, text: str) -> bool:
    """Carry out a Query message for a row that memory has, if its text is known; whether that was done."""
    prepared = executor.known(text)
    unnamed = session.portals.get("")
    if prepared is None or (unnamed is not None and unnamed.answer is not None):
        return False
    found = executor.look(Portal(prepared, (), ()))
    if found is None:
        return False
    session.statements.pop("", None)
    session.portals.pop("", None)
    session.write(found.described + found.data)
    session.ready()
    return True


async def _run(session: Session, executor: Executor, copies: Copies, prepared: Prepared) -> None:
    if isinstance(prepared.command, Copy):
        session.block.check(prepared.command)
        with session.running():
            await copies.run(prepared.command)
        return
    portal = Portal(prepared, (), ())
    if (found := executor.look(portal)) is not None:
        session.write(found.described + found.data)
        return
    with session.running():
        answer = await executor.start(portal)
        try:
            sent = 0
            if answer.columns is not None:
                session.write(messages.row_description(answer.columns))
                sent, _ = await send_rows(session, answer)
            session.write(messages.complete(answer.tag(sent)))
        finally:
            await answer.close()
