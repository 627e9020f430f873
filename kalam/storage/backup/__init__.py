"""A copy of a data directory while it is in use, and what makes one of it again."""
