"""A real S3 server, moto's, with one bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s3fs
from patience import PATIENCE_S

BUCKET = "kalam-test"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class S3:
    """A running S3 server with one bucket."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files = s3fs.S3FileSystem(endpoint_url=url, key="test", secret="test", skip_instance_cache=True)
        self.files.mkdir(BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "FSSPEC_S3_ENDPOINT_URL": self.url, "KALAM_LOCATION_ROOTS": f"s3://{BUCKET}/tables"}

    def names(self, prefix: str = "") -> list[str]:
        self.files.invalidate_cache()
        return sorted(self.files.find(f"{BUCKET}/{prefix}"))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Run one while the block does; its log lies in ``folder``."""
    process, url = _start_moto(folder)
    try:
        yield S3(url)
    finally:
        process.kill()
        process.wait()


def _start_moto(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    log = folder / "moto.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=file,
            stderr=file,
            env={**os.environ, **KEYS},
        )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        for word in log.read_text().split():
            if word.startswith("http://127.0.0.1:"):
                return process, word.rstrip("/")
        time.sleep(0.05)
