"""What lies in JetStream: the streams of STREAM tables and the feeds of changes, written and read."""
