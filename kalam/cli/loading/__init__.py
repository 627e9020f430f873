"""What stands between a file of the world and rows of a table: finding it, unpacking it, and fitting its columns."""
