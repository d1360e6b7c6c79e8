"""Panoptic: things from boxes and stuff from tags, every pixel explained (Li, Arnab, Torr: Weakly- and Semi-Supervised
Panoptic Segmentation, ECCV 2018)."""
