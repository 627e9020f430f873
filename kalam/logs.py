"""The log: structlog to standard error, as text or JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from kalam.query.running import running_query
from kalam.tracing import current_trace, trace_id

OWN_LOGGERS = ("kalam", "kalam_nats", "kalam_http", "kalam_pg")


def _name_request(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say in a line which request it is about; nothing is bound at each request for the few lines that there are."""
    query, trace = running_query(), current_trace()
    if query is not None:
        event.setdefault("query_id", query.query_id)
    if trace is not None:
        event.setdefault("trace_id", trace_id(trace))
    return event


def configure_logs(log_format: str, level: str) -> None:
    """Set up logging for the process; libraries' own records come out the same way."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _name_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
        shared.append(structlog.processors.format_exc_info)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,  # rich's shows local variables, which hold users' rows
        )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Not less from libraries: DataFusion's engine logs from threads of its own, which at the level of debug hold locks
    # that others wait for while it waits for Python, and then the server stands still for good.
    root.setLevel(max(logging.getLevelName(level.upper()), logging.WARNING))
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("nats").setLevel(logging.ERROR)
