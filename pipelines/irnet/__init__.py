"""IRNet: instance masks from image tags (Ahn, Cho, Kwak: Weakly Supervised Learning of Instance Segmentation with
Inter-pixel Relations, CVPR 2019)."""
