"""Semantic segmentation networks: training and inference."""
