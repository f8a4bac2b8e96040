"""A background map on the device: what `survey_io.background.BackgroundMap.sample` gives, without the copies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class MeshOnDevice:
    """Background and rms on a mesh, interpolated bilinearly at the pixels of windows.

    Parameters
    ----------
    background, rms : ndarray, shape (my, mx)
        Values at the mesh cells' centres.
    mesh : int
        Side of a mesh cell in pixels.
    """

    def __init__(self, background: np.ndarray, rms: np.ndarray, mesh: int, device: torch.device):
        self.mesh = mesh
        self._maps = torch.from_numpy(np.stack([background, rms]).astype(np.float32)).to(device)

    def sample(self, window: tuple[slice, slice]) -> Tensor:
        """Both maps at the pixels of a window, which may reach outside the image; float32 (2, h, w)."""
        values = self._maps
        for axis, span in enumerate(window, 1):
            low, high, part = self._between(span, values.shape[axis])
            shape = [1, 1, 1]
            shape[axis] = -1
            part = part.reshape(shape)
            values = values.index_select(axis, low) * (1 - part) + values.index_select(axis, high) * part
        return values

    def _between(self, span: slice, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cells below and above each pixel of an axis, and how far it lies between their centres."""
        pixels = torch.arange(span.start, span.stop, device=self._maps.device, dtype=torch.float64)
        position = ((pixels + 0.5) / self.mesh - 0.5).clamp(0, count - 1)
        low = position.to(torch.int64).clamp(max=max(count - 2, 0))
        return low, (low + 1).clamp(max=count - 1), (position - low).to(torch.float32)
