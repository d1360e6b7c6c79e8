"""Reading, writing and drawing of labels: COCO JSON, RLE, label maps."""
