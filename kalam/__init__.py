"""Kalam: SQL tables on NATS."""

__version__ = "0.1.0"
