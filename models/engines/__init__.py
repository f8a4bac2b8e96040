"""Ways to run a network: a fixed batch in, raw maps out. One file per backend, each with its line here."""

from models.engines import onnx_engine, openvino_engine, tensorrt_engine, torch_engine

__all__ = ["onnx_engine", "openvino_engine", "tensorrt_engine", "torch_engine"]
