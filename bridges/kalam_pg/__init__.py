"""The PostgreSQL door: its wire protocol, for psql, drivers and BI tools."""
