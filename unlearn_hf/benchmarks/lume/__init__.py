"""LUME: the benchmark behind SemEval-2025 task 4 (Ramakrishna et al. 2025)."""
