"""Fixtures of the views: namespaces on a server that a module's tests share, and waiting for what follows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE_S
from server_process import ServerProcess

_numbers = itertools.count(1)
WaitFor = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def namespace(shared_server: ServerProcess) -> str:
    """A new namespace on the module's server."""
    name = f"v{next(_numbers)}"
    shared_server.sql(f"CREATE NAMESPACE {name}")
    return name


@pytest.fixture
def wait_for() -> WaitFor:
    """Waits until a function answers something true, and returns it; raises TimeoutError after a while."""

    def wait_for(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (met := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError("the condition was not met")
            time.sleep(0.02)
        return met

    return wait_for
