"""Evaluation: per-sample tables, metrics, attacks, result files and logs of other frameworks."""

RESULT_FILE, SAMPLES_FILE = "evaluation.json", "samples.parquet"
TASKS_FILE = "lm_eval.json"
"""Names of the files that an evaluation leaves in its folder."""
