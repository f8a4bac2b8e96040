"""What networks are told of the beam."""

from __future__ import annotations

import numpy as np


def beam_vector(beam: tuple[float, float, float]) -> np.ndarray:
    """What networks are told of a beam: ln major, ln minor (px), e cos 2 theta, e sin 2 theta."""
    major, minor, theta = beam
    e = 1 - minor / major
    return np.array([np.log(major), np.log(minor), e * np.cos(2 * theta), e * np.sin(2 * theta)], np.float32)
