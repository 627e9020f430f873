"""Frames of Arrow tables that leave nothing behind in their context.

``SessionContext.from_arrow`` registers the table under a name of its own choosing and never lets go of it: each query
that joined hot rows or hidden keys kept them in memory for good, some 20 MB a minute under an even load. A frame holds
what it reads by itself, so the name is taken away at once.
"""

from __future__ import annotations

from itertools import count

import pyarrow as pa
from datafusion import DataFrame, SessionContext

_numbers = count()


def arrow_frame(ctx: SessionContext, table: pa.Table) -> DataFrame:
    """The rows of an Arrow table as a frame, which alone keeps them."""
    name = f"kalam_arrow_{next(_numbers)}"  # of its own, because queries make frames at the same time
    frame = ctx.from_arrow(table, name)
    ctx.deregister_table(name)
    return frame
