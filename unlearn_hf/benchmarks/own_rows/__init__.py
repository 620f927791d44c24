"""Rows of one's own, from files."""
