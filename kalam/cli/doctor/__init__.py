"""``kalam doctor``: what is wrong with a machine, a data directory, a broker and a server, and what to do."""
