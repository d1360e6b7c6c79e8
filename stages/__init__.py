"""The reusable steps; they import nothing of pipelines."""
