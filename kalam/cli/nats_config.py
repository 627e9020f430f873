"""``kalam nats-config``: what an outside broker needs so that Kalam answers its logins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kalam.cli.address import DEFAULT_DATA_DIR


def nats_config(
    data_dir: Annotated[
        Path, typer.Option(envvar="KALAM_DATA_DIR", help="The data directory, in which the private keys are kept.")
    ] = DEFAULT_DATA_DIR,
) -> None:
    """Print what an outside nats-server's configuration needs for `kalam serve --auth on --nats-url …`.

    The first time it makes Kalam's keys to that server, in files that are for their owner alone; only the public ones
    are printed. Another time it prints the same.
    """
    from kalam.outside import nats_configuration

    typer.echo(nats_configuration(data_dir), nl=False)
