"""Data sets to images and truth, and truth to weak annotations."""
