"""Looking at an observation of any size: tiles of a pyramid, its noise over the area, values under a cursor."""

from __future__ import annotations

from pipeline.preview.preview import Preview, open_preview

__all__ = ["Preview", "open_preview"]
