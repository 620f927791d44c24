"""Evaluation: per-sample tables, metrics, attacks, result files and logs of other frameworks."""
