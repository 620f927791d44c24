"""TOFU: questions on invented authors (Maini et al. 2024)."""
