"""Mask R-CNN engines: Detectron2 and torchvision."""
