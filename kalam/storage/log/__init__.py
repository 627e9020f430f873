"""The database: its one writer, the catalogue, the log of hot rows, and how far it has come."""
