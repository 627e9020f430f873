"""``python -m kalam`` is the command ``kalam``."""

from kalam.cli.main import main

main()
