"""The figures as a table for people, with rich on a terminal and plain in a pipe, or as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Final

from kalam import __version__
from kalam.bench.figures import Figure, Unit
from kalam.bench.sizes import Sizes
from kalam.cli.result_formats import machine_stdout, table_lines

Figures = Mapping[str, Sequence[Figure]]

WIDTHS: Final = {"figure": 26, "Kalam": 9, "bare": 9, "unit": 11, "Kalam / bare": 12, "note": 32}
TO_THE_RIGHT: Final = {"Kalam", "bare", "Kalam / bare"}


def print_json(figures: Figures, sizes: Sizes, took_s: float) -> None:
    """Print everything as one JSON object."""
    answer = {
        "version": __version__,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "sizes": asdict(sizes),
        "took_s": round(took_s, 1),
        "figures": [figure.as_json(name) for name, several in figures.items() for figure in several],
    }
    machine_stdout().write(json.dumps(answer, indent=2) + "\n")


def print_table(figures: Figures, took_s: float) -> None:
    """Print the figures as a table."""
    if sys.stdout.isatty():
        _print_rich(figures)
    else:
        _print_plain(figures)
    sys.stdout.write(
        f"Kalam {__version__}, {os.cpu_count()} cores, {took_s:.0f} s. Of rates more is better, of all else less.\n"
    )


def _print_plain(figures: Figures) -> None:
    names = ["measurement", "situation", *WIDTHS, "bare engine"]
    columns = [{"name": name, "type": "DOUBLE" if name in TO_THE_RIGHT else "TEXT"} for name in names]
    rows = [
        [name, figure.situation, *_cells(figure), figure.bare_engine or ""]
        for name, several in figures.items()
        for figure in several
    ]
    encoding = sys.stdout.encoding or "ascii"
    lines = table_lines({"columns": columns, "rows": rows}, styled=False, encoding=encoding)
    sys.stdout.writelines(line + "\n" for line in lines)
    sys.stdout.write("\n")


def _print_rich(figures: Figures) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for measurement, several in figures.items():
        for situation, group in groupby(several, key=lambda figure: figure.situation):
            shown = list(group)
            engine = next((figure.bare_engine for figure in shown if figure.bare_engine), None)
            beside = f"  next to {engine}" if engine else ""
            console.print(Text.assemble((measurement, "bold cyan"), (f"  {situation}", "bold"), (beside, "dim")))
            table = Table(box=box.SIMPLE_HEAD, header_style="dim", border_style="dim", pad_edge=False, show_edge=False)
            for name, width in WIDTHS.items():
                table.add_column(name, justify="right" if name in TO_THE_RIGHT else "left", min_width=width)
            for figure in shown:
                styles = ["", "bold", "", "dim", "bold", "dim" if figure.complete else "bold red"]
                table.add_row(*map(Text, _cells(figure), styles))
            console.print(Padding(table, (0, 0, 1, 2)))


def _cells(figure: Figure) -> list[str]:
    """The cells of a figure, as ``WIDTHS`` names them."""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    bare = "" if figure.bare is None else _shown(figure.bare, figure.unit)
    return [figure.name, _shown(figure.kalam, figure.unit), bare, figure.unit.value, ratio, _note(figure)]


def _note(figure: Figure) -> str:
    return figure.note if figure.complete else f"INCOMPLETE {figure.note}"


def _shown(value: float, unit: Unit) -> str:
    match unit:
        case Unit.EVENTS_PER_S | Unit.ROWS_PER_S | Unit.ROWS_PER_CPU_S | Unit.MB:
            return f"{value:,.0f}"
        case Unit.MS | Unit.US | Unit.CPU | Unit.MB_PER_S:
            return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
