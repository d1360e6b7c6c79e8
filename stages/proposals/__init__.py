"""Class-agnostic segment proposals: built in (``hierarchy``) or from a file."""
