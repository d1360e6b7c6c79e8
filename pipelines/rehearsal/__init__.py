"""What a rehearsal is made of: miniatures of the data sets, shortened settings, a watch on the stages, the full run."""
