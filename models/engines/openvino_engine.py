"""OpenVINO on the processor: the fastest here, in float32 and in bf16."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engines.base import check_input, register_engine
from survey_io.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


@register_engine("openvino", requires=("openvino",), precisions=("f32", "bf16"))
class OpenVinoEngine:
    """A compiled graph with dynamic batch, height and width (3% slower than a fixed shape)."""

    name = "openvino"

    def __init__(self, module: nn.Module, *, precision: str, threads: int) -> None:
        from models.engines.graph_file import cached_graph, write_openvino

        self.precision = precision
        self.threads = threads
        self._compiled = compile_graph(
            str(cached_graph(module, ".xml", write_openvino)), precision=precision, threads=threads
        )
        self._requests = threading.local()

    def __call__(self, snr: np.ndarray, beam: np.ndarray) -> np.ndarray:
        """See `models.engines.base.Engine`."""
        snr, beam = check_input(snr, beam)
        request = getattr(self._requests, "mine", None)
        if request is None:
            request = self._requests.mine = self._compiled.create_infer_request()
        request.infer({"snr": snr, "beam": beam}, share_inputs=True)
        # The request writes its next answer into the same memory.
        return request.get_output_tensor(0).data.copy()

    def close(self) -> None:
        """See `models.engines.base.Engine`."""
        self._requests = threading.local()
        self._compiled = None


def compile_graph(path: str, *, precision: str = "f32", threads: int = 1) -> Any:
    """A compiled model on the processor, its precision set: OpenVINO's own default here would be bf16."""
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise OptionError(f"this processor computes in {', '.join(able)}, not in bf16: use precision f32")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        # Calls from several Python threads queue for one stream that has all the cores: as fast as a stream
        # per caller, with the memory of one, and a single caller is served as well.
        "NUM_STREAMS": 1,
        # Several worker processes would otherwise sit on the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(path, "CPU", settings)
