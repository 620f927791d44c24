"""Evaluation: per-sample tables, metrics on TOFU and MUSE, result files and logs of other frameworks."""
