"""An error that was answered is gone, and with it what its frames hold: rows, hot data, results."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import nats
from asking import asking
from patience import PATIENCE_S

from kalam.errors import KalamError
from kalam.server import open_server
from kalam.settings import load_settings

REFUSED = (
    ("kalam.api.ann.sql", {"sql": "SELECT * FROM n.nothing"}),
    ("kalam.api.ann.sql", {"sql": "UPDATE n.t SET id = 'x' WHERE id = 1"}),
    ("kalam.api.ann.sql", {"sql": "SELECT 1/0 FROM n.t"}),
    ("kalam.api.ann.live", {"sql": "SELECT * FROM n.nothing"}),
    ("kalam.api.ann.live.none.close", {}),
    ("kalam.api.ann.insert.n.t", {"id": "x"}),
    ("kalam.api.ann.insert.n.nothing", {"id": 1}),
)


async def test_no_error_outlives_its_answer(data_dir: Path) -> None:
    async with open_server(load_settings(data_dir=data_dir, http_port=0, nats_port=0)) as running:
        await asking(running).execute("CREATE NAMESPACE n; CREATE TABLE n.t (id BIGINT PRIMARY KEY)")
        await asking(running).execute("INSERT INTO n.t VALUES (1)")
        client = await nats.connect(running.nats_url)
        gc.collect()
        gc.disable()  # what it would find is what this test looks for
        try:
            for subject, asked in REFUSED * 20:
                answer = await client.request(subject, json.dumps(asked).encode(), timeout=PATIENCE_S)
                assert answer.headers is not None
                assert "Nats-Service-Error" in answer.headers, (subject, asked)
            kept = [kept.code for kept in gc.get_objects() if isinstance(kept, KalamError)]
        finally:
            gc.enable()
            await client.close()
        assert len(kept) < 20, kept  # one of the last ones may still be on its way


def test_an_error_as_a_value_has_no_frames_though_errors_are_tied_in_a_ring() -> None:
    first, second = KalamError("first"), ValueError("second")
    try:
        raise second
    except ValueError:
        first.__cause__, second.__context__ = second, first
    assert second.__traceback__ is not None
    assert first.as_value() is first
    assert (first.__traceback__, second.__traceback__) == (None, None)
