"""The audit: attacks on an unlearned model, and what came back relative to the model before and the retain-only model.

From outside: the registry in `base`, `run_audit` of `running`, and `signing`.
"""
