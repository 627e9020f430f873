"""Parameters that are intervals, of which DataFusion looks at what stands beside them and not at their values."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from kalam.sql.text.edits import Edits
from kalam.sql.text.lexer import Kind, StatementText, read_tokens


def with_intervals(text: str, values: Mapping[str, pa.Scalar]) -> str:
    """The text, in which the parameters that are intervals say so."""
    numbers = {f"${number}" for number, value in values.items() if pa.types.is_interval(value.type)}
    if not numbers:
        return text
    edits = Edits(text)
    for token in read_tokens(StatementText(text)):
        if token.kind is Kind.PARAMETER and token.text in numbers:
            edits.enclose((token.start, token.end), "arrow_cast(", ", 'Interval(MonthDayNano)')")
    return edits.whole
