"""WISE (Laradji et al., ICIP 2020): one point per object, proposals, and pixel embeddings."""
