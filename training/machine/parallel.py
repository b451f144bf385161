"""Several processes that train one model together: each takes a share of every batch's videos.

    torchrun --nproc-per-node 2 -m -- refineloc.training TRAIN.h5 TRAIN.csv ... --run runs/NAME

The group of processes belongs to the whole process, as that of torch.distributed does: after `join` all functions of
this module act in it, and in a process that nobody else trains with they do nothing.

All processes draw the same weights, orders and pseudo labels from the same seeds. What they add up is the gradient of a
batch and the sums over the validation videos. So the batch stays the batch of one process, and the result is the same
but for the order of additions. Dropout (W-TALC, BaS-Net) is the exception: each process has its own draws, so such a
run depends on the number of processes. `fit` seeds them for each epoch, so that a resumed run of as many processes ends
as one that was not killed.

A video is never split. A process may have no video of a small last batch, which a wrapper that averages gradients (DDP)
does not allow: the gradients, a few MB, are added in one call after `backward`.

A step that can fail in one process alone (files are read and written) goes through `agree`: then all processes end,
with one line.
"""

import atexit
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from refineloc.runtime.errors import RefineLocError

__all__ = [
    "SharedError", "add", "add_gradients", "agree", "join", "one_voice", "rank", "share", "share_of_batch",
    "size",
]  # fmt: skip

Item = TypeVar("Item")


class SharedError(RefineLocError):
    """An error of one process, raised in all of them."""


def rank() -> int:
    """The number of this process; 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Every `size`-th item, beginning with number `rank`."""
    return items[rank() :: size()]


def share_of_batch(videos: Tensor, unit: int = 1) -> Tensor:
    """This process's videos of a batch, `unit` neighbours at a time; may be none.

    Args:
        videos: int64 [V].
        unit: how many neighbours stay together.
    """
    return videos[torch.arange(len(videos)) // unit % size() == rank()]


def add(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, in place."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes; a parameter without one counts as zeros."""
    if size() == 1:
        return
    parameters = list(parameters)
    flat = add(torch.cat([_gradient(parameter).reshape(-1) for parameter in parameters]))
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def agree(step: Callable[[], Item]) -> Item:
    """Do a step that every process does, and give its result.

    Raises:
        SharedError: it failed in one of several processes. It is raised in all, so that none waits for another.
    """
    if size() == 1:
        return step()
    results: list[Item] = []
    error: Exception | None = None
    try:
        results.append(step())
    except (RefineLocError, OSError, MemoryError) as raised:
        error = raised
    # As text: not every exception can be sent.
    failure = None if error is None else (str(error) or "out of memory", getattr(error, "parameter", ""))
    errors: list[tuple[str, str] | None] = [None] * size()
    dist.all_gather_object(errors, failure)
    for number, failed in enumerate(errors):
        if failed is not None:
            message, parameter = failed
            raise SharedError(f"process {number}: {message}" if number else message, parameter=parameter) from error
    return results[0]


def join(device: torch.device) -> None:
    """Join the group that torchrun describes in the environment, if it started this process; leave it at exit."""
    if not _processes() > 1 or dist.is_initialized():
        return
    # Optimizers load this module, whose functions have the group as default arguments. Loaded after the group is made,
    # they keep it, and gloo's threads with it: one that lets go of a tensor while Python ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    cuda = device.type == "cuda"
    # Small things, such as what `agree` sends, go by gloo.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", device_id=device if cuda else None)
    # At exit and not before: the other processes wait until process 0 has printed an error of all (`one_voice`).
    atexit.register(dist.destroy_process_group)


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let one of several processes raise what they all failed with; the others end without a word, with exit code 2.

    Raises:
        RefineLocError: in process 0, an error of all; in any process, an error that it has alone.
    """
    if not _processes() > 1:
        yield
        return
    number = int(os.environ.get("RANK", "0"))
    try:
        yield
    except SharedError:
        if number == 0:
            raise
        # The first process that ends makes torchrun end the others: wait until process 0 has said why, and is gone. By
        # gloo, which sees at once that a connection is closed; NCCL would wait for minutes.
        with contextlib.suppress(RuntimeError):
            dist.all_reduce(torch.zeros(1))
        sys.exit(2)
    except RefineLocError as error:
        raise RefineLocError(f"process {number}: {error}", parameter=error.parameter) from error
    except RuntimeError as error:
        if "peer" not in str(error) and "closed" not in str(error):
            raise
        if number:
            sys.exit(2)
        raise RefineLocError(
            "another process of this run has ended; if it said nothing, it was killed (out of memory?)"
        ) from error


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
