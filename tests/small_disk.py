"""A small file system of its own, which a test fills up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount one at ``folder`` while the block runs; skips where that is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(file: Path, leave: int = 0) -> None:
    """Write a file until so many bytes are free, or none."""
    with file.open("wb", buffering=0) as opened:
        free = shutil.disk_usage(file.parent).free - leave
        try:
            while free > 0:
                free -= opened.write(b"\0" * min(free, 1 << 20))
            if not leave:
                opened.write(b"\0" * 4_096)
        except OSError:
            return
