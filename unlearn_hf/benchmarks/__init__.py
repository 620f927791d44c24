"""Everything that knows a benchmark by name: its data, its evaluator, its aggregates.

From outside: `load_tofu`, `load_muse`, `load_lume`, their evaluators, `PairsEvaluator` and the registry.
"""
