"""The one row codec: JSON, msgpack, Arrow and SQL values to rows, and rows to events, stored blobs and Arrow."""
