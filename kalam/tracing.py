"""Which trace a piece of work belongs to (https://www.w3.org/TR/trace-context/), and spans for whoever wants them.

The law: a request that names no trace costs one look into its headers. Spans are made by whatever ``use_spans`` was
given; until then, and without OpenTelemetry for good, ``span`` gives a context manager that does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE: ContextVar[str | None] = ContextVar("trace", default=None)
_NOTHING: Final = nullcontext()

Attributes = Mapping[str, str | int]


class SpanMaker(Protocol):
    """Begins a span that lasts as long as the context.

    It stands below the first of ``traces``, or where there is none below the span, or else the trace, of this context;
    the other traces are those of work that is done together with it. Spans that begin in the block stand below it,
    unless it is ``apart``: such a one may end in another task.
    """

    def __call__(
        self, name: str, traces: Iterable[str], attributes: Attributes, *, apart: bool
    ) -> AbstractContextManager[object]:
        """The span."""


_MAKERS: Final[list[SpanMaker]] = []
"""At most one: the process's, as OpenTelemetry's provider is."""


def use_spans(maker: SpanMaker | None) -> None:
    """Have spans made from now on, or none any more."""
    _MAKERS[:] = [] if maker is None else [maker]


def named_trace(headers: Mapping[str, str]) -> str | None:
    """The ``traceparent`` among the headers of a NATS message, in whose names case counts, and libraries differ."""
    return read_trace(headers.get(TRACEPARENT) or headers.get("Traceparent"))


def read_trace(text: str | None) -> str | None:
    """The ``traceparent`` that a header names; None for one that is none, which is to be ignored."""
    return text if text and _FORM.fullmatch(text) else None


def trace_id(trace: str) -> str:
    """The id of the whole trace, by which its logs and spans are found."""
    return trace[3:35]


def current_trace() -> str | None:
    """The ``traceparent`` of the request that is worked on in this context."""
    return _TRACE.get()


def enter_trace(trace: str) -> None:
    """Work on a request of a trace from now on, in a task of its own."""
    _TRACE.set(trace)


@contextmanager
def in_trace(trace: str | None) -> Iterator[None]:
    """Work on a request of a trace in the block."""
    token = _TRACE.set(trace)
    try:
        yield
    finally:
        _TRACE.reset(token)


def makes_spans() -> bool:
    """Whether anybody wants spans."""
    return bool(_MAKERS)


def span(name: str, *, apart: bool = False, **attributes: str | int) -> AbstractContextManager[object]:
    """A span around the block, in the trace of this context, or the first of a trace."""
    return _MAKERS[0](name, (), attributes, apart=apart) if _MAKERS else _NOTHING


def batch_span(name: str, traces: Iterable[str], **attributes: str | int) -> AbstractContextManager[object]:
    """A span around what is done for requests of several traces at once; none where no trace is named."""
    return _MAKERS[0](name, traces, attributes, apart=False) if _MAKERS and traces else _NOTHING
