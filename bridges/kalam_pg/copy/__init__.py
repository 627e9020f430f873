"""COPY: rows in bulk, as text, CSV or in binary."""
