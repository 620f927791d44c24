"""The two gradients of a step: kept apart, averaged, looked at, weighted by their Gram matrix.

From outside: `GradientBuffers`, the weightings, and the geometry file.
"""
