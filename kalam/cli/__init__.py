"""The command line. Results go to stdout, everything else to stderr; exit status 0, 1 (failed) or 2 (wrong usage)."""
