"""The command ``kalam``, and ``python -m kalam``."""

from __future__ import annotations

import gc
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line and end the process."""
    if find_spec("kalam.cli") is None:  # the distribution kalam-client has no more than the client
        sys.exit("error: the command kalam is not part of kalam-client: pip install kalam-server")
    from kalam.garbage_collection import WHILE_IMPORTING

    # What imports make is kept, so the collector need not look at it every 700 objects: that took a tenth of a start.
    gc.set_threshold(*WHILE_IMPORTING)
    from kalam.cli.main import main

    main()


if __name__ == "__main__":
    main()
