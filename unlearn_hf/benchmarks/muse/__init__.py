"""MUSE: news and books (Shi et al. 2024)."""
