"""``python -m kalam.query.worker <control> <server> <settings>``: the process from which the workers are forked.

It imports DataFusion once, starts no thread, and waits. A worker is a copy of it, there in milliseconds and with most
of its memory shared. The control socket brings the sockets of a new worker, and takes its process id and later its
exit status. When the socket closes, the server is gone, and everything here ends.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from kalam.imports import DATA_FRAMES, OBJECT_STORES, forgo
from kalam.query.worker.ending import end_with_parent
from kalam.query.worker.limits import Limits


def main() -> None:
    """Import what workers need, and fork them."""
    control = socket.socket(fileno=int(sys.argv[1]))
    end_with_parent(int(sys.argv[2]), "kalam-queries")
    forgo(DATA_FRAMES, *OBJECT_STORES)
    from kalam.query.worker.forking import ForkServer  # now, because it imports pyarrow

    ForkServer(control, msgspec.json.decode(sys.argv[3], type=Limits)).run()
    os._exit(0)


if __name__ == "__main__":
    main()
