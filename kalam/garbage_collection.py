"""Python's collector of cyclic garbage, set for a server that makes and drops rows by the thousand."""

from __future__ import annotations

import gc

THRESHOLDS = 50_000, 20, 20


def spare_the_collector() -> None:
    """Have it look less often, and never among what is there by now.

    Rows are not part of cycles; a look after every 700 new objects, as is Python's default, took a tenth of the
    server's time. Cycles there are, of errors above all, and hours may go by before so many objects
    are made: ``kalam.storage.work.housekeeping`` has the collector look every half minute.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
