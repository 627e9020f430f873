"""The processes in which queries are planned and run: nothing of it is imported by the server."""
