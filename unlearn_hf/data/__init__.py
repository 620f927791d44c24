"""Data: benchmarks' mini files, own files, encoding, templates and pairing.

From outside: `load_pairs` and `load_rows` of `own_files`, `encode_dataset` of `encoding`, `TEMPLATES` of `templates`.
"""
