"""Where objects are: classifiers, attention maps, peaks, simple masks."""
