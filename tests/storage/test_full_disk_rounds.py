"""A disk that fills up again and again: ``FULL_DISK_ROUNDS=20`` plays as many rounds of each kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from full_disk_rounds import KINDS, Rounds
from server_process import ServerProcess
from small_disk import small_disk

ROUNDS = int(os.environ.get("FULL_DISK_ROUNDS", "2"))
DISK_MB = 96


@pytest.mark.timeout(240 + 240 * ROUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_comes_back_from_a_full_disk(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        server = ServerProcess(disk / "data", environment={"KALAM_DISK_FREE_BYTES_MIN": str(4 << 20)})
        try:
            server.start()
            rounds = Rounds(server, disk)
            rounds.begin()
            for number in range(ROUNDS):
                rounds.play(kind, number)
            server.kill()
            server.restart()
            rounds.check()
            sys.stderr.write(f"{ROUNDS} rounds of {kind}: back after at most {rounds.slowest_s:.1f} s\n")
        finally:
            server.kill()
