"""Detectors, one architecture per file; importing this package registers them."""

from models.detectors import light, light3d, sdc1, sdc2, smooth_clip, threshold

__all__ = ["light", "light3d", "sdc1", "sdc2", "smooth_clip", "threshold"]
