"""The manual: pages of Markdown in ``kalam/manual``, in the order in which they are read.

A page is named as its file, and its title is its first heading. The console, ``kalam help`` and any viewer of the
repository show the same pages.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import msgspec

ORDER: Final = (
    *("tutorial", "sql", "system", "streams", "adopt", "views", "live", "files", "lake"),
    *("python", "http", "nats", "postgres", "protocol"),
    *("commands", "settings", "errors", "metrics", "operations", "security", "policies"),
    *("guarantees", "comparison", "speed"),
)


class Page(msgspec.Struct, frozen=True):
    """A page of the manual."""

    title: str
    text: str


def read_pages() -> dict[str, Page]:
    """The pages by name, in their order; one that ``ORDER`` does not name comes last."""
    found = {
        file.name.removesuffix(".md"): file.read_text(encoding="utf-8")
        for file in (files("kalam") / "manual").iterdir()
        if file.name.endswith(".md")
    }
    names = [*(name for name in ORDER if name in found), *sorted(found.keys() - set(ORDER))]
    return {name: Page(found[name].partition("\n")[0].removeprefix("# ").strip(), found[name]) for name in names}
