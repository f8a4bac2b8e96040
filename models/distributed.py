"""One training in several processes, each with its own device and examples, on one machine or on many.

Started by ``devices`` on one machine, or by ``torchrun --nproc-per-node N [--nnodes M ...] -m flows.cli train ...``.
All processes hold the same weights; after each backward pass gradients are averaged over them, and so are the running
statistics of BatchNorm (whose batch statistics are each process's own). Process 0 writes all files.
"""

from __future__ import annotations

import os
import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.train_options import TrainOptions
from survey_io.errors import OptionError, SkysiftError

# Others wait while process 0 draws pictures and writes.
_PATIENCE = timedelta(hours=1)


def launched() -> bool:
    """Whether this process is one of several that torchrun or `launch` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this process is the one that writes: the only one, or process 0 of several."""
    return int(os.environ.get("RANK", "0")) == 0 if launched() else True


def choose_device(name: str, place: int = 0) -> torch.device:
    """The device to train on; "auto" takes a GPU where there is one. Process ``place`` of a machine has its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, place) if name == "cuda" and place else torch.device(name)


@dataclass(frozen=True)
class Processes:
    """This process among those of one training.

    Attributes
    ----------
    rank, count : int
        Its number of so many.
    device : torch.device
    """

    rank: int
    count: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def share(self, net: nn.Module) -> None:
        """Begin with the weights of process 0."""
        if self.count > 1:
            for tensor in net.state_dict().values():
                held = tensor.detach().contiguous()
                dist.broadcast(held, 0)
                tensor.copy_(held)

    def average(self, net: nn.Module) -> None:
        """Average the gradients over all processes, and the running statistics of BatchNorm.

        A weight without gradient in one process counts as 0 there; one without any gradient stays without. All go in
        one message, since the networks are small beside what a link carries in a step.
        """
        if self.count == 1:
            return
        weights = [weight for weight in net.parameters() if weight.requires_grad]
        statistics = [
            tensor for layer in net.modules() if isinstance(layer, _BatchNorm) and layer.training
            for tensor in (layer.running_mean, layer.running_var) if tensor is not None
        ]  # fmt: skip
        parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights] + statistics
        has = torch.tensor([w.grad is not None for w in weights], dtype=torch.float32, device=self.device)
        flat = torch.cat([part.detach().reshape(-1).float() for part in parts] + [has])
        dist.all_reduce(flat)
        flat /= self.count
        means = flat.split([part.numel() for part in parts] + [len(weights)])
        for weight, mean, any_has in zip(weights, means, means[-1].tolist(), strict=False):
            if any_has:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                weight.grad.copy_(mean.view(weight.shape))
        for tensor, mean in zip(statistics, means[len(weights) : -1], strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def agree(self, value: float) -> float:
        """A number as process 0 has it, such as its clock."""
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(held, 0)
        return float(held)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined(options: TrainOptions) -> Iterator[Processes]:
    """Join the other processes of a training, where there are any, until the end of the block; blocks may be nested.

    Raises
    ------
    OptionError
        When there are fewer GPUs than processes on this machine.
    """
    if not launched():
        yield Processes(0, 1, choose_device(options.device))
        return
    place = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(options.device, place)
    if device.type == "cuda":
        if place >= torch.cuda.device_count():
            raise OptionError(
                f"process {place} of this machine needs a GPU of its own, there are {torch.cuda.device_count()}: "
                "start fewer, or train with device cpu"
            )
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        # Process 0 holds what the others meet by, and must not leave before them.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def launch(work: Callable[..., Path], options: TrainOptions, report: Callable[[str], None]) -> Path:
    """Run ``work(options, report=...)`` in ``options.devices`` processes of this machine.

    Returns
    -------
    Path
        What process 0 returned.

    Raises
    ------
    SkysiftError
        As one of the processes did; the others are stopped.
    """
    context = torch.multiprocessing.get_context("spawn")
    said = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = torch.multiprocessing.start_processes(
        _enter, (work, options, port, said), nprocs=options.devices, join=False, start_method="spawn"
    )
    found: dict[str, Any] = {}

    def listen(seconds: float) -> bool:
        try:
            kind, value = said.get(timeout=seconds)
        except queue.Empty:
            return False
        if kind == "line":
            report(value)
        else:
            found.setdefault(kind, value)
        return True

    try:
        while listen(0.2) or not running.join(timeout=0):
            pass
    except Exception:
        while listen(1.0):
            pass
        if "error" in found:
            raise found["error"] from None
        raise
    finally:
        for process in running.processes:
            if process.is_alive():
                process.terminate()
    while "path" not in found and listen(1.0):
        pass
    return found["path"]


def _enter(place: int, work: Callable[..., Path], options: TrainOptions, port: int, said: Any) -> None:
    os.environ |= {
        "RANK": str(place), "LOCAL_RANK": str(place), "WORLD_SIZE": str(options.devices),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if options.threads is None:
        torch.set_num_threads(max((os.cpu_count() or 1) // options.devices, 1))
    try:
        path = work(options, report=lambda line: said.put(("line", line)))
        if place == 0:
            said.put(("path", path))
    except SkysiftError as error:
        said.put(("error", error))
        raise

