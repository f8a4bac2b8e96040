"""The stages from stored pixels to detections as tensors: on a GPU, and unchanged on a processor."""
