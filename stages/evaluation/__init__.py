"""Scores of labels and of the detector, and the report."""
