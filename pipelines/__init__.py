"""What is done in which order: the methods, the check before a run, and commands of several runs."""
