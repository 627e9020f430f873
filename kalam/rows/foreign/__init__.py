"""Messages that others published, as rows of a table over their stream."""
