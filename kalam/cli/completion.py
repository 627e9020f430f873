"""``kalam completion``: the script that completes commands and flags in a shell."""

from __future__ import annotations

import enum
import os
from typing import Annotated

import typer


class Shell(enum.StrEnum):
    """A shell whose completion is known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    context: typer.Context, shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)]
) -> None:
    """Print the script that completes kalam in a shell.

    In bash for this session: source <(kalam completion bash). `kalam --install-completion` puts it where your shell
    finds it.
    """
    os.environ["_KALAM_COMPLETE"] = f"source_{shell}"  # what the program prints its script for, and ends
    context.find_root().command.main(args=[], prog_name="kalam")
