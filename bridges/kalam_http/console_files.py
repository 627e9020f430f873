"""The files of the console: read once, when they are first asked for, and kept with their compressed form.

They come from the package itself: what is built (``console/dist``), the pages of the manual, and the demo's data.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from importlib.resources import files

import msgspec

from kalam.manual_pages import read_pages


class ConsoleFile(msgspec.Struct, frozen=True):
    """A file as it is answered; ``etag`` names its content."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, media_type: str, packed: bytes | None = None) -> ConsoleFile:
        """From its bytes, and the same compressed by gzip where they lie there already."""
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return cls(body, packed or gzip.compress(body, 6, mtime=0), media_type, etag)


class ConsoleFiles:
    """Finds files by name."""

    def __init__(self) -> None:
        built = files("kalam_http") / "console" / "dist"
        self._makers: dict[str, Callable[[], ConsoleFile]] = {
            name: lambda name=name, kind=kind: ConsoleFile.of((built / name).read_bytes(), kind)  # type: ignore[misc]
            for name, kind in (
                ("index.html", "text/html; charset=utf-8"),
                ("console.js", "text/javascript; charset=utf-8"),
                ("console.css", "text/css; charset=utf-8"),
                ("icon.svg", "image/svg+xml"),
                ("LICENSES.txt", "text/plain; charset=utf-8"),
            )
        }
        self._makers["manual.json"] = lambda: ConsoleFile.of(manual_json(), "application/json")
        self._makers["earthquakes.ndjson"] = _earthquakes
        self._makers["llms.txt"] = _llms
        self._found: dict[str, ConsoleFile] = {}

    def find(self, name: str) -> ConsoleFile | None:
        """The file; None where there is none of that name. Blocking the first time."""
        found = self._found.get(name)
        if found is None and name in self._makers:
            found = self._found[name] = self._makers[name]()
        return found


def _llms() -> ConsoleFile:
    return ConsoleFile.of((files("kalam") / "manual" / "llms.txt").read_bytes(), "text/plain; charset=utf-8")


def _earthquakes() -> ConsoleFile:
    packed = (files("kalam") / "demo_data" / "earthquakes.ndjson.gz").read_bytes()
    return ConsoleFile.of(gzip.decompress(packed), "application/x-ndjson", packed)


def manual_json() -> bytes:
    """``[{"name", "title", "text"}, …]``: the pages of the manual."""
    pages = [{"name": name, "title": page.title, "text": page.text} for name, page in read_pages().items()]
    return msgspec.json.encode(pages)
