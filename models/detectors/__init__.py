"""Detectors, one architecture per file; the registry imports these, all or only the one that is asked for."""

MODULES = ("darknet", "light", "light3d", "line_clip", "lines", "sdc1", "sdc2", "smooth_clip", "threshold")
