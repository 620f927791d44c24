"""Attacks: what an adversary can tell or get back from an unlearned model."""
