"""Values, from Arrow columns to the bytes of rows and from parameters' bytes to Python."""
