"""Many rows in one text or message: JSON, msgpack, CSV and Arrow."""
