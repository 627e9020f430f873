"""Generated keys, which are taken on the event loop and in threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from kalam.rows.ids import SnowflakeIds, UuidV7s


@pytest.fixture
def eager_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("ids", [SnowflakeIds(clock=lambda: 1_700_000_000_000), UuidV7s(clock=lambda: 1)])
@pytest.mark.usefixtures("eager_threads")
def test_threads_that_take_at_the_same_time_get_different_keys(ids: SnowflakeIds | UuidV7s) -> None:
    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda _: [ids.take(3) for _ in range(2_000)], range(8)))
    taken = [key for run in runs for key in chain.from_iterable(run)]
    assert len(set(taken)) == len(taken) == 48_000
    assert all(run == sorted(run) for run in runs)
