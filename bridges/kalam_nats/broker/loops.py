"""A loop that runs beside a block: neither outlives the other, and an error passes as itself.

A bare TaskGroup around ``yield`` would do, but it wraps each error of the block in an ExceptionGroup, once for every
resource that is open, so that no caller could catch the error it expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run ``loop`` as a task of that name while the block runs.

    The block's end cancels the loop; the loop's failure cancels the block. Raises what failed first.
    """
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(loop, name=name)
            try:
                yield
            finally:
                task.cancel()
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:  # raised here, so that its own cause and context stay as they were
        raise failure
