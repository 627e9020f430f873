"""A server gives memory back: Arrow's pool is the C library's, and what is free is returned."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
from kalam.allocator import choose_allocator
choose_allocator()
import pyarrow as pa
print(pa.default_memory_pool().backend_name)
"""


def test_arrow_takes_the_memory_of_the_c_library_unless_its_own_setting_says_otherwise() -> None:
    def chosen(**environment: str) -> str:
        known = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=known | environment
        )
        return done.stdout.strip()

    assert chosen() == "system"
    assert chosen(ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"
