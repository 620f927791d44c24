"""The verdict of an unlearning run: did the rows go, did the others stay; facts and plain sentences.

From outside: `Judge` measures a model, `decide` makes the verdict of two measurements, `sentences` says it.
"""

VERDICT_FILE = "verdict.json"
"""Name of the file in a run folder."""
BEFORE_FILE = "verdict_before.json"
"""Likewise, of what was measured before unlearning."""
