"""``kalam help``: the pages of the manual, on the terminal."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Annotated

import typer

from kalam.cli.failure import WrongUsage
from kalam.manual_pages import read_pages


def show_page(
    page: Annotated[str | None, typer.Argument(help="The page's name; without one they are listed.")] = None,
) -> None:
    """Show a page of the manual."""
    pages = read_pages()
    if page is None:
        wide = max(map(len, pages))
        lines = (f"  {name.ljust(wide)}  {found.title}" for name, found in pages.items())
        typer.echo("\n".join(["The manual: kalam help <page>", *lines]))
        return
    found = pages.get(page.removesuffix(".md").lower())
    if found is None:
        near = get_close_matches(page, pages)
        hint = f"; is it {near[0]!r}?" if near else f": there are {', '.join(pages)}"
        raise WrongUsage(f"the manual has no page {page!r}{hint}")
    if not sys.stdout.isatty():
        typer.echo(found.text, nl=False)
        return
    from rich.console import Console  # only here: it takes a while
    from rich.markdown import Markdown

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(found.text))
