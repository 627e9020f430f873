"""The dialect of a CSV file: what was said, or what its first line shows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalam.cli.failure import WrongUsage

if TYPE_CHECKING:  # CSV brings pyarrow, which takes a while
    from kalam.rows.formats.csv_text import Dialect

TAB_SUFFIXES: Final = frozenset({".tsv", ".tab"})
DELIMITERS: Final = ",\t;|"
"""What the first line is looked through for; the first one that it has counts."""
WORDS: Final = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


def one_character(option: str, text: str, *, may_be_empty: bool = False) -> str:
    """A character that an option says, by itself or by name; raises WrongUsage."""
    text = WORDS.get(text.lower(), text)
    if (len(text) == 1 and text.isascii() and text not in "\r\n") or (may_be_empty and not text):
        return text
    raise WrongUsage(f"{option} takes one ASCII character, or one of {', '.join(WORDS)}; found {text!r}")


def dialect_of(
    path: Path,
    head: bytes,
    *,
    delimiter: str | None,
    quote: str,
    nulls: Sequence[str],
    names: Sequence[str] | None,
) -> Dialect:
    """The dialect of a file that begins with ``head``; what is given counts."""
    from kalam.rows.formats.csv_text import Dialect

    if delimiter is None:
        line = head.split(b"\n", 1)[0].decode("utf-8", "replace")
        shown = next((found for found in DELIMITERS if found in line), ",")
        delimiter = "\t" if path.suffix.lower() in TAB_SUFFIXES else shown
    return Dialect(delimiter=delimiter, quote=quote, nulls=nulls, names=names)


def checked_encoding(name: str | None) -> str | None:
    """The name of an encoding that there is; raises WrongUsage."""
    try:
        return None if name is None else codecs.lookup(name).name
    except LookupError as exc:
        raise WrongUsage(f"--encoding {name!r} is not known; try utf-8, cp1252, latin-1 or utf-16") from exc
