"""Python's collector of cyclic garbage, set for a server that makes and drops rows by the thousand."""

from __future__ import annotations

import gc

THRESHOLDS = 1_000, 4, 6_000
"""No look at what is new takes longer than some milliseconds, during which no thread gets its turn.

Objects of live queries that open are the dearest: 5,000 of them took up to 8 ms, and 30,000, with what had outlived
five looks, up to 13."""
WHILE_IMPORTING = 300_000, 20, 20
"""What imports make stays."""


def spare_the_collector() -> None:
    """Have it look less often, and never among what is there by now.

    Rows are not part of cycles; a look after every 700 new objects, as is Python's default, took a tenth of the
    server's time. Cycles there are, of errors above all, and hours may go by before so many objects
    are made: ``kalam.storage.work.housekeeping`` has the collector look every half minute.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
