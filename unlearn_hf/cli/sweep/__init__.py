"""A search over options: what was asked for, one shared study, trials as runs of `unlearn`, and how it came out.

From outside: `first_look` gives a `Plan`; `SharedStudy`, `TrialRunner` and `conclude` carry it out, and need Optuna.
"""
