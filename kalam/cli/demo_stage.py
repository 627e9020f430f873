"""How the demo looks: headings, statements, result tables, checks. Plain text where there is no terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from kalam.cli.demo_quakes import Quake
from kalam.cli.result_formats import NUMBER_TYPES

WIDTH_MAX = 110
INDENT = (0, 0, 0, 2)


class Stage:
    """Where the demo is shown; ``failed`` are the checks that did not hold."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        self._console = Console(highlight=False, width=min(console.width, WIDTH_MAX) if console.is_terminal else 100)
        self._scenes = 0
        self._at_heading = False
        self.failed: list[str] = []

    def title(self, text: str, subtitle: str) -> None:
        """Open the demo."""
        body = Text.assemble((text, "bold"), "\n", (subtitle, "dim"))
        self._console.print(Panel(body, box=box.ROUNDED, border_style="cyan", expand=False, padding=(0, 2)))

    def scene(self, text: str) -> None:
        """Begin the next scene."""
        self._scenes += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._scenes} ", "bold cyan"), (text, "bold")))
        self._at_heading = True

    def say(self, text: str, style: str = "") -> None:
        """One line of telling."""
        for line in text.splitlines():  # a path or command is not broken, so that it can be copied
            self._console.print(Text(f"  {line}", style), soft_wrap=True)

    def statement(self, sql: str, user: str | None = None) -> None:
        """SQL as it is sent, set apart from what stands before it."""
        if not self._at_heading:
            self._console.print()
        self._at_heading = False
        prompt = f"{user}> " if user else "> "
        for index, line in enumerate(sql.splitlines()):
            lead = prompt if index == 0 else " " * len(prompt)
            self._console.print(Text.assemble("  ", (lead, "dim"), (line, "green")), soft_wrap=True)

    def result(self, result: dict[str, Any], leave_out: tuple[str, ...] = ()) -> None:
        """A result as a table."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
        kept = [i for i, column in enumerate(result["columns"]) if column["name"] not in leave_out]
        for column in (result["columns"][i] for i in kept):
            is_number = column["type"].split("(")[0] in NUMBER_TYPES
            table.add_column(Text(column["name"]), justify="right" if is_number else "left")
        for row in result["rows"]:
            table.add_row(*(_cell(row[i]) for i in kept))
        self._console.print(Padding(table, INDENT, expand=False))

    def quake(self, quake: Quake) -> None:
        """A message that the subscriber received."""
        colour = "bold red" if quake.mag >= 6 else "yellow" if quake.mag >= 5.5 else ""
        when = f"{quake.time:%a %d %b %H:%M}"
        line = Text.assemble("    ", (f"M {quake.mag:.1f}", colour), f"  {when}  {quake.place}")
        self._console.print(line, overflow="ellipsis", no_wrap=True)

    def check(self, text: str, held: bool) -> None:
        """A fact that must hold."""
        mark = ("ok", "bold green") if held else ("FAILED", "bold red")
        self._console.print(Padding(Text.assemble(mark, "  ", text), INDENT, expand=False))
        if not held:
            self.failed.append(text)

    def progress(self) -> Progress:
        """A progress bar below the lines that are printed meanwhile; none where there is no terminal."""
        return Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=40),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )


def _cell(value: Any) -> Text:
    if value is None:
        return Text("NULL", "dim")
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}")
    return Text(str(value))
