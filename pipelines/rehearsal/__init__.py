"""What a rehearsal is made of: miniatures of the data sets, shortened settings, a watch on the stages, the full run."""

from stages.runtime import layout

FOLDER = layout.METRICS / "rehearsal"
CPU_BATCH = 4
"""Samples of a step on a CPU, unless more are asked for: with a preset's own a rehearsal would take hours."""
MEMORY = 24e9
"""Bytes that the processes of a stage may take together on a CPU; beside a GPU the loaders' add up to more."""
BUSY = 0.25
"""Share of the cores that other work may keep busy during a stage; above it seconds are not this device's own, and
are not quoted."""
