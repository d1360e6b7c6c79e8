"""Point labels inside the crops of objects, one ``.npz`` per image: what point-propagating methods leave for others.

Arrays of K objects: ``labels`` (K, N, N) int8 with the values below over the windows, ``scores`` (K, N, N) float16 by
which the retrieved ones were chosen (positive is foreground), ``windows`` (K, 4) int32 (left, top, right, bottom in
whole pixels), ``boxes`` (K, 4) float64 xyxy on pixel edges, ``categories`` (K,) int64.
"""

from __future__ import annotations

# Pseudo points are retrieved, the others given.
BACKGROUND, PSEUDO_BACKGROUND, UNLABELLED, PSEUDO_FOREGROUND, FOREGROUND = -2, -1, 0, 1, 2
