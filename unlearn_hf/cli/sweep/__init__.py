"""A search over options: the space, one shared study, trials as runs of `unlearn`, and the choice of the best.

From outside: `parse_space`, `SharedStudy`, `TrialRunner`, `choose`, `conclude`.
"""
