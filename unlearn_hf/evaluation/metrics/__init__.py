"""Metrics: from values per sample to aggregates."""
