"""What libraries raise below the client reaches its caller as one of ``kalam.errors``, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pandas as pd
import pytest
from server_process import ServerProcess

import kalam.client as kalam
from kalam.client.answers import Answer
from kalam.client.kalam import Kalam
from kalam.errors import (
    BrokerUnavailable,
    Cancelled,
    Internal,
    InvalidOption,
    InvalidValue,
    KalamError,
    SyntaxFault,
    TooLarge,
)


@pytest.fixture
async def k(shared_server: ServerProcess) -> AsyncIterator[Kalam]:
    shared_server.sql("CREATE NAMESPACE IF NOT EXISTS lab; CREATE TABLE IF NOT EXISTS lab.t (k BIGINT, v TEXT)")
    async with kalam.connect(shared_server.nats_url) as connection:
        yield connection


@pytest.mark.parametrize("value", [object(), 1 << 80, "\ud800", {1: object()}])
async def test_a_parameter_that_cannot_be_sent_is_an_invalid_value(k: Kalam, value: Any) -> None:
    with pytest.raises(InvalidValue):
        await k.sql("SELECT $1", [value])


@pytest.mark.parametrize(
    "rows", [5, None, [object()], [{"k": 1 << 80}], [{"v": "\ud800"}], pd.DataFrame({"k": [1, "a", object()]})]
)
async def test_rows_that_cannot_be_sent_are_an_invalid_value(k: Kalam, rows: Any) -> None:
    with pytest.raises(InvalidValue):
        await k.insert("lab.t", rows)


async def test_what_the_callers_own_iterator_raises_is_the_callers(k: Kalam) -> None:
    def rows() -> Any:
        yield {"k": 1}
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await k.insert("lab.t", rows())


async def test_a_text_without_a_statement_is_an_error_of_kalams(k: Kalam) -> None:
    with pytest.raises((SyntaxFault, Internal)):
        await k.sql("-- nothing")


async def test_a_request_longer_than_a_message_is_too_large(k: Kalam) -> None:
    with pytest.raises(TooLarge, match="max_payload"):
        await k.sql(f"SELECT '{'x' * (9 << 20)}'")
    with pytest.raises(TooLarge, match="max_payload"):
        await anext(k.live(f"SELECT * FROM lab.t WHERE v = '{'x' * (9 << 20)}'"))
    with pytest.raises(InvalidValue):
        await anext(k.live("SELECT * FROM lab.t WHERE v = '\ud800'"))


@pytest.mark.parametrize("url", ["nats://127.0.0.1:port", "nats://127.0.0.1:99999999", "gopher://127.0.0.1:4222"])
async def test_an_address_that_is_none_is_an_error_of_kalams(url: str) -> None:
    with pytest.raises((InvalidOption, BrokerUnavailable)):
        async with kalam.connect(url, timeout_s=1):
            pass


async def test_an_option_that_nats_does_not_know_is_an_invalid_option(shared_server: ServerProcess) -> None:
    with pytest.raises(InvalidOption, match="no_such"):
        async with kalam.connect(shared_server.nats_url, no_such=1):
            pass


@pytest.mark.parametrize(("sql_type", "value"), [("DATE", "12000-01-01"), ("TIMESTAMP", "soon"), ("SMALLINT", 70_000)])
def test_a_value_that_arrow_cannot_hold_is_an_invalid_value(sql_type: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match="column c"):
        Answer((("c", sql_type),), [[value]], 1, None).arrow()


@pytest.mark.parametrize("body", [b"", b"{}", b"no", b'{"results": []}', b'{"results": [1]}'])
def test_an_answer_that_is_none_of_kalams_is_said_to_be(body: bytes) -> None:
    with pytest.raises(Internal, match="none of Kalam's"):
        Answer.last_of(body)


def test_the_end_of_a_live_query_is_an_error_of_kalams() -> None:
    assert issubclass(kalam.LiveClosed, Cancelled)
    assert issubclass(kalam.LiveClosed, KalamError)


async def test_no_error_shows_the_password_of_a_url() -> None:
    with pytest.raises(BrokerUnavailable) as refused:
        async with kalam.connect("nats://somebody:secret@127.0.0.1:1", timeout_s=0.2):
            pass
    assert "somebody:***@127.0.0.1" in str(refused.value)
