"""Everything that touches the disk: the database, the catalogue, hot rows, segments and flushes."""
