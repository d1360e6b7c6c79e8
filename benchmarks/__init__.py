"""Timed comparisons of our kernels with plain references; ``python -m benchmarks.run`` runs them all."""
