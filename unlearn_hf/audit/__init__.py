"""The audit: attacks on an unlearned model, and what came back relative to the model before and the retain-only model.

From outside: the registry in `base`, `plan`, `running` and `signing`.
"""

AUDIT_FILE, SIGNATURE_FILE = "audit.json", "audit.json.sig"
