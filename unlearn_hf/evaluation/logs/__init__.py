"""Readers of result files: ours, TOFU's and open-unlearning's."""
