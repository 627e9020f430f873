"""The command ``kalam``, and ``python -m kalam``."""

from __future__ import annotations

import gc

from kalam.garbage_collection import THRESHOLDS


def main() -> None:
    """Run the command line and end the process."""
    # What imports make is kept, so the collector need not look at it every 700 objects: that took a tenth of a start.
    gc.set_threshold(*THRESHOLDS)
    from kalam.cli.main import main

    main()


if __name__ == "__main__":
    main()
