"""Which errors of an engine mean that a device ran out of memory or is lost, and not that a call was wrong."""

from __future__ import annotations

import re

from survey_io.errors import SkysiftError

# What torch, OpenVINO, ONNX Runtime and TensorRT say, each in words of its own and most of them as RuntimeError.
_MEMORY = re.compile(
    r"out of memory|not enough memory|bad_alloc|bad alloc|cannot allocate memory|can't allocate memory|"
    # oneDNN says no more than this where it gets no memory for its code or its scratch.
    r"could not create a (primitive|memory)|"
    r"failed to allocate|resource temporarily unavailable|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_DEVICE = re.compile(r"\bCUDA|cudnn|cublas|device-side assert|NVML|NVRTC|TensorRT", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work at once may succeed."""
    # torch.OutOfMemoryError is a RuntimeError; its name tells it where torch is not loaded.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def is_device_failure(error: BaseException) -> bool:
    """Whether a GPU or its libraries failed, so that another engine may still do the work."""
    if type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError | SkysiftError) and _DEVICE.search(str(error)) is not None


def reason(error: BaseException) -> str:
    """An error's first sentence or so, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
