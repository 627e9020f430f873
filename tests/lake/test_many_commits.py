"""However often it is committed, a lake stays small: tried 150 times, or as often as the environment says."""

from __future__ import annotations

import os
from collections.abc import Callable

from lake_readers import READERS, lake_of, rows_of, selected
from server_process import ServerProcess

COMMITS = int(os.environ.get("KALAM_TEST_LAKE_COMMITS", "150"))
FILES_MAX, BYTES_MAX = 60, 300_000


def test_metadata_stays_bounded(start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam(KALAM_ICEBERG_INTERVAL_S="0", KALAM_SEGMENTS_KEPT_S="0.2")
    server.sql("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY, v INT)")
    most_files = most_bytes = 0
    for commit in range(COMMITS):
        server.sql(f"INSERT INTO n.t VALUES ({commit}, 0); UPDATE n.t SET v = {commit} WHERE id = {commit // 2}")
        server.sql("FLUSH TABLE n.t")
        [[_, _, _, _, rows, metadata_bytes, _, _]] = server.sql("REFRESH LAKE FOR TABLE n.t")
        assert rows == commit + 1
        most_bytes = max(most_bytes, metadata_bytes)
        most_files = max(most_files, len(list((lake_of(server, "n.t") / "metadata").iterdir())))
    assert (most_files < FILES_MAX, most_bytes < BYTES_MAX) == (True, True), (most_files, most_bytes)
    seen = selected(server, "SELECT * FROM n.t")
    for engine, read in READERS.items():
        assert rows_of(read(lake_of(server, "n.t")), seen.schema, "id") == rows_of(seen, seen.schema, "id"), engine
    if COMMITS > 1_000:
        print(f"{COMMITS} commits: at most {most_files} files, {most_bytes} bytes of metadata")  # noqa: T201
