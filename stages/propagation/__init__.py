"""Pixel affinities, random walks and the dense CRF: the numerical kernels that spread labels over an image."""
