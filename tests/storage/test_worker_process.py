"""A worker's answers do not hang on its log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
from patience import PATIENCE_S

from kalam.schema import Compression
from kalam.storage.work.flush_worker import FlushAnswer, FlushRequest


def test_a_worker_answers_though_its_log_takes_nothing(tmp_path: Path) -> None:
    request = FlushRequest(
        database=str(tmp_path / "none.db"),
        table_id=1,
        schema_version=1,
        copy_id=1,
        upto_seq=1,
        columns=(),
        history={},
        key=("id",),
        folder=str(tmp_path),
        name="batch",
        compression=Compression.ZSTD,
        segment_rows_max=1,
        forget_deleted_us=0,
    )
    message = msgspec.msgpack.encode(request)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kalam.storage.work.worker_main", "kalam.storage.work.flush_worker"],
            input=2 * (len(message).to_bytes(4, "big") + message),
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=PATIENCE_S,
        )
    frames = []
    rest = done.stdout
    while rest:
        size = int.from_bytes(rest[:4], "big")
        frames.append(msgspec.msgpack.decode(rest[4 : 4 + size], type=FlushAnswer))
        rest = rest[4 + size :]
    assert [frame.disk_failed for frame in frames] == [True, True]
    assert all("unable to open" in (frame.error or "") for frame in frames)
