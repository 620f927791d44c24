"""Data: benchmarks, own files, encoding and pairing."""
