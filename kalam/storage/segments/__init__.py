"""The Parquet segments: where they lie, how they are written, checked, read by key and let go."""
