"""Statements on users, roles, grants, tokens, policies and sessions."""
