"""SELECT on DataFusion: one snapshot, hot and cold merged, results."""
