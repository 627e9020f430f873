"""Queries that give SQL's answer where DataFusion alone would give another one."""
