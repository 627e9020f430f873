"""Texts before they are statements: tokens, literals, the dialect of sqlglot, and the statements as values."""
