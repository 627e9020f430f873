"""Spans, collected in this process by OpenTelemetry's own exporter for tests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from cli_process import environment

trace_api = pytest.importorskip("opentelemetry.trace", reason="the extra `test` brings it")
from asking import asking  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402 - only where it is
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from kalam.server import Running, open_server  # noqa: E402
from kalam.settings import Settings  # noqa: E402
from kalam.spans import open_spans  # noqa: E402
from kalam.tracing import makes_spans, use_spans  # noqa: E402

WaitUntil = Callable[[Callable[[], Any]], Awaitable[None]]


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_api.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def _spans(exporter: InMemorySpanExporter) -> Iterator[None]:
    open_spans({})
    exporter.clear()
    yield
    use_spans(None)


@pytest.fixture
async def server(_spans: None, tmp_path: Path) -> AsyncIterator[Running]:
    settings = Settings(data_dir=tmp_path / "data", http_port=0, nats_port=0)
    settings.data_dir.mkdir()
    async with open_server(settings) as running:
        yield running


def trace(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def of_trace(exporter: InMemorySpanExporter, number: int) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans() if span.context.trace_id == number}


def post_sql(url: str, sql: str, number: int, accept: str = "application/json") -> bytes:
    headers = {"Content-Type": "application/json", "Accept": accept, "traceparent": trace(number)}
    body = json.dumps({"sql": sql}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/sql", body, headers)) as answer:
        return bytes(answer.read())


async def test_an_insert_is_decoded_committed_and_published(
    server: Running, exporter: InMemorySpanExporter, wait_until: WaitUntil
) -> None:
    await asking(server).execute("CREATE NAMESPACE s; CREATE TABLE s.t (id BIGINT PRIMARY KEY)")
    client = await nats.connect(server.nats_url)
    subject = "kalam.api.ann.insert.s.t"
    headers = [{"traceparent": trace(1)}, {"traceparent": trace(2)}]
    await asyncio.gather(*(client.request(subject, b'{"id": %d}' % n, headers=h) for n, h in enumerate(headers)))
    await wait_until(lambda: "kalam.publish" in of_trace(exporter, 1))
    await client.request(subject, b'{"id": 9}')
    await client.close()
    spans = of_trace(exporter, 1)
    assert set(spans) == {"kalam.decode", "kalam.commit", "kalam.publish"}
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == 1
        assert [link.context.trace_id for link in span.links] == [2]  # they were done together
        assert span.attributes is not None
        assert span.attributes["kalam.table"] == "s.t"
    named = [span for span in exporter.get_finished_spans() if span.name == "kalam.commit"]
    assert len(named) == 1  # an insert that names no trace costs none


async def test_a_query_is_planned_and_executed_below_its_request(
    server: Running, exporter: InMemorySpanExporter
) -> None:
    for number, accept in ((3, "application/json"), (4, "text/csv")):
        sql = "SELECT sum(value) AS s FROM range(1, 4) GROUP BY value"
        await asyncio.to_thread(post_sql, server.http_url, sql, number, accept)
        spans = of_trace(exporter, number)
        assert set(spans) == {"kalam.sql", "kalam.plan", "kalam.execute"}
        assert spans["kalam.sql"].parent is not None
        assert spans["kalam.sql"].parent.span_id == number
        assert spans["kalam.plan"].end_time is not None
        assert spans["kalam.execute"].start_time is not None
        assert spans["kalam.plan"].end_time <= spans["kalam.execute"].start_time
    whole = of_trace(exporter, 3)
    for name in ("kalam.plan", "kalam.execute"):
        parent = whole[name].parent
        assert parent is not None
        assert parent.span_id == whole["kalam.sql"].context.span_id


async def test_a_flush_stands_below_the_statement_that_asks_for_it(
    server: Running, exporter: InMemorySpanExporter
) -> None:
    await asking(server).execute("CREATE NAMESPACE f; CREATE TABLE f.t (id BIGINT PRIMARY KEY)")
    await asyncio.to_thread(post_sql, server.http_url, "INSERT INTO f.t VALUES (1)", 5)
    await asyncio.to_thread(post_sql, server.http_url, "FLUSH TABLE f.t", 6)
    assert {"kalam.sql", "kalam.commit"} <= set(of_trace(exporter, 5))
    spans = of_trace(exporter, 6)
    parent = spans["kalam.flush"].parent
    assert parent is not None
    assert parent.span_id == spans["kalam.sql"].context.span_id


async def test_what_failed_is_marked_and_its_text_is_kept_out(server: Running, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(post_sql, server.http_url, "SELECT secret_column FROM range(1, 2)", 7)
    refused.value.close()
    span = of_trace(exporter, 7)["kalam.sql"]
    assert span.status.status_code is trace_api.StatusCode.ERROR
    assert "secret_column" not in span.to_json()


def test_nothing_is_imported_where_it_is_switched_off_or_missing() -> None:
    code = (
        "import sys, importlib.util\n"
        "from kalam.spans import open_spans\n"
        "from kalam.tracing import makes_spans\n"
        "open_spans({'OTEL_SDK_DISABLED': 'true'})\n"
        "importlib.util.find_spec = lambda name: None\n"
        "open_spans({})\n"
        "assert not makes_spans()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not makes_spans()
