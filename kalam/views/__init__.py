"""Materialized views: tables whose rows follow from those of others."""
