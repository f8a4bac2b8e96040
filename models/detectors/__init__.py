"""Detectors, one architecture per file; importing this package registers them."""

from models.detectors import light, sdc1, smooth_clip, threshold

__all__ = ["light", "sdc1", "smooth_clip", "threshold"]
