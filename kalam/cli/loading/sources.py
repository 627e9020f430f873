"""The files that an insert reads: those of a folder or a pattern, unpacked and in UTF-8.

A reader of a format gets a file of bytes that it can peek into and need not know that it was compressed, or written in
another encoding.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from kalam.cli.failure import CommandFailed

STDIN: Final = "-"
PIECE_BYTES: Final = 256 << 10
PACKED: Final = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
"""How a packed file's name ends, and what it begins with."""
UTF8_BOM: Final = b"\xef\xbb\xbf"
OTHER_BOMS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
TEXT_SUFFIXES: Final = frozenset({".csv", ".tsv", ".tab", ".txt", ".ndjson", ".jsonl", ".json"})
SUFFIXES: Final = TEXT_SUFFIXES | {".parquet", ".arrow", ".arrows", ".feather", ".ipc"}


class Source(msgspec.Struct, frozen=True):
    """A file that is open: ``shown`` is what a person calls it ('' for stdin), ``path`` its name without ``.gz``.

    ``size`` is its length in bytes, 0 where nobody knows how many will be read.
    """

    shown: str
    path: Path
    file: BinaryIO
    size: int


def find_files(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that are meant, and those of a folder that are left out because their names say nothing of a format.

    Raises CommandFailed where a name, pattern or folder has none.
    """
    found: list[str] = []
    left_out: list[str] = []
    for name in (STDIN if each == "/dev/stdin" else each for each in given):
        if name == STDIN or Path(name).is_file():
            found.append(name)
            continue
        if Path(name).is_dir():
            inside = sorted(path for path in Path(name).iterdir() if path.is_file() and path.name[0] not in "._")
            fit = [path for path in inside if is_known(path)]
            left_out += [str(path) for path in inside if path not in fit]
        else:
            matching = glob.glob(name, recursive=True)  # noqa: PTH207 - a pattern may begin anywhere
            fit = sorted(path for path in map(Path, matching) if path.is_file())
        if not fit:
            raise CommandFailed(f"error: cannot read {name}: {_nothing(name)}")
        found += map(str, fit)
    return found, left_out


def is_known(path: Path) -> bool:
    """Whether a file's name says that it holds rows."""
    return unpacked_name(path).suffix.lower() in SUFFIXES


def unpacked_name(path: Path) -> Path:
    """The name without what says that the file is packed."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def _nothing(name: str) -> str:
    if Path(name).is_dir():
        return f"the folder has no file that ends in one of {', '.join(sorted(SUFFIXES))} (or these and .gz, .zst)"
    if Path(name).exists():
        return f"it is no file; what it gives is read from stdin: `kalam insert … - < {name}`"
    return "no file matches" if glob.has_magic(name) else "No such file or directory"


@contextlib.contextmanager
def open_source(name: str, encoding: str | None, spooled: Path | None = None) -> Iterator[Source]:
    """Open a file, unpacked; texts in another encoding, which is given or which the file begins with, as UTF-8.

    ``spooled`` is a file that has what stdin had.
    """
    with contextlib.ExitStack() as stack:
        raw = _open(str(spooled) if name == STDIN and spooled else name, stack)
        path = unpacked_name(Path(name))
        try:
            file = unpacked(raw)
            plain = file is raw
            if is_text(path, file):
                file = in_utf8(file, encoding)
            head_of(file)  # what is wrong with it from the beginning is told here
        except OSError as exc:
            raise CommandFailed(f"error: cannot read {name}: {exc.strerror or exc}") from exc
        yield Source("" if name == STDIN else name, path, file, _size(raw) if plain else 0)


def _open(name: str, stack: contextlib.ExitStack) -> BinaryIO:
    if name == STDIN:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(name).open("rb"))
    except OSError as exc:
        raise CommandFailed(f"error: cannot read {name}: {exc.strerror}") from exc


def _size(file: Any) -> int:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def head_of(file: BinaryIO) -> bytes:
    """The first bytes, which stay to be read."""
    return bytes(file.peek(64)) if hasattr(file, "peek") else b""


def unpacked(file: BinaryIO) -> BinaryIO:
    """The file, or what it holds if it is packed, which its first bytes say."""
    head = head_of(file)
    if head.startswith(PACKED[".gz"]):
        return io.BufferedReader(_Packed(gzip.GzipFile(fileobj=file)), PIECE_BYTES)
    if head.startswith(PACKED[".zst"]):
        import pyarrow as pa

        return io.BufferedReader(_Packed(pa.CompressedInputStream(file, "zstd")), PIECE_BYTES)
    return file


def is_text(path: Path, file: BinaryIO) -> bool:
    """Whether the file is of a format that is text."""
    if path.suffix.lower() in SUFFIXES:
        return path.suffix.lower() in TEXT_SUFFIXES
    return not head_of(file).startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"))


def in_utf8(file: BinaryIO, encoding: str | None) -> BinaryIO:
    """A text as UTF-8; ``encoding`` is what it is in, None for UTF-8 or what its byte order mark says.

    UTF-16 without a mark is little-endian, as in the WHATWG's Encoding Standard and on Windows.
    """
    named = encoding or "utf-8"
    if encoding is None or named == "utf-16":
        marked = (name for mark, name in OTHER_BOMS.items() if head_of(file).startswith(mark))
        named = next(marked, "utf-16-le" if named == "utf-16" else named)
    return file if named in ("utf-8", "utf-8-sig", "ascii") else io.BufferedReader(_InUtf8(file, named), PIECE_BYTES)


class _Packed(io.RawIOBase):
    """What a packed file holds; raises OSError also for one that is cut off."""

    def __init__(self, unpacking: Any) -> None:
        self._unpacking = unpacking

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._unpacking.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
            raise OSError(None, f"it is packed and damaged: {exc}") from exc
        except OSError as exc:
            raise OSError(None, f"it is packed and damaged: {exc}") from exc
        buffer[: len(piece)] = piece
        return len(piece)


class _InUtf8(io.RawIOBase):
    """A text in another encoding, as UTF-8; raises CommandFailed where it is not in that encoding."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._file.read(PIECE_BYTES)
            if not self._read:
                piece = _without_mark(piece, self._encoding)
            try:
                text = self._decoder.decode(piece, final=not piece)
            except UnicodeError as exc:
                place = self._read + getattr(exc, "start", 0)
                raise CommandFailed(
                    f"error: the file is not {self._encoding}, at byte {place:,}: say another --encoding"
                ) from exc
            self._read += len(piece)
            self._rest = text.encode("utf-8", "replace")
            if not piece:
                break
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _without_mark(piece: bytes, encoding: str) -> bytes:
    """Without a byte order mark, which Excel writes before other encodings as well."""
    marks = {UTF8_BOM: True} | {mark: encoding == named for mark, named in OTHER_BOMS.items()}
    return next((piece[len(mark) :] for mark, counts in marks.items() if counts and piece.startswith(mark)), piece)
