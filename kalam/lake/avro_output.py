"""Where pyiceberg writes an Avro file to: memory, so that size and checksum are known before the disk has it."""

from __future__ import annotations

import io
from typing import Any

from pyiceberg.io import InputFile, OutputFile


class _Sink(io.BytesIO):
    """A buffer whose content outlives it."""

    def __init__(self, output: AvroOutput) -> None:
        super().__init__()
        self._output = output

    def close(self) -> None:
        """Hand over what was written."""
        if not self.closed:
            self._output.content = self.getvalue()
        super().close()


class AvroOutput(OutputFile):
    """One file that is written once; then it is ``content``."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.content = b""

    def __len__(self) -> int:
        return len(self.content)

    def exists(self) -> bool:
        """Nothing is there before."""
        return False

    def to_input_file(self) -> InputFile:
        """Nobody reads it back."""
        raise NotImplementedError

    def create(self, overwrite: bool = False) -> Any:
        """A stream whose content is kept when it is closed."""
        return _Sink(self)
