"""The Python client: rows in, SQL, and live queries, over NATS; answers of any length over HTTP.

::

    async with kalam.connect("nats://127.0.0.1:4222", user="ada") as k:
        await k.insert("lab.readings", {"sensor": "roof", "celsius": 21.5})
        answer = await k.sql("SELECT count(*) AS n FROM lab.readings")
        async for change in k.live("SELECT * FROM lab.readings WHERE celsius > 20", last_rows=10):
            print(change.op, change.row)

``with kalam.connect_sync(…) as k:`` has the same methods for programs without an event loop; there they wait.

What the server refuses is raised as the same ``kalam.errors`` that the server itself uses.
"""

from kalam.client.answers import Answer, Description
from kalam.client.kalam import Kalam, connect
from kalam.client.live import Change, LiveClosed, LiveRows
from kalam.client.streamed import Streamed
from kalam.client.sync import KalamSync, LiveRowsSync, StreamedSync, connect_sync

__all__ = [
    "Answer",
    "Change",
    "Description",
    "Kalam",
    "KalamSync",
    "LiveClosed",
    "LiveRows",
    "LiveRowsSync",
    "Streamed",
    "StreamedSync",
    "connect",
    "connect_sync",
]
