"""Several processes that train one model together: each takes a share of every batch's videos.

    torchrun --nproc-per-node 2 -m -- refineloc.training TRAIN.h5 TRAIN.csv ... --run runs/NAME

All processes draw the same weights, orders and pseudo labels from the same seeds; what they add up is the gradient of a
batch and the sums over the validation videos. So the batch stays the batch of one process, and the result is the same
but for the order of additions. A video is never split; a process may have none of a small last batch, for which a
wrapper that averages gradients (DDP) has no place: the gradients, a few MB, are added in one call after `backward`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["ALONE", "Group", "join"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of a run.

    Attributes:
        rank: of this one; 0 writes the files.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `size`-th item, beginning with `rank`."""
        return items[self.rank :: self.size]

    def share_of(self, videos: Tensor, unit: int = 1) -> Tensor:
        """The same of a batch's videos, `unit` neighbours at a time; may be none."""
        if self.size == 1:
            return videos
        return videos[torch.arange(len(videos)) // unit % self.size == self.rank]

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes; a parameter without one counts as zeros."""
        if self.size == 1:
            return
        every = list(parameters)
        flat = self.add(torch.cat([_gradient(one).reshape(-1) for one in every]))
        parts = torch.split(flat, [one.numel() for one in every])
        for one, part in zip(every, parts, strict=True):
            one.grad = part.view_as(one)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Group()


def join(device: torch.device) -> Group:
    """The group that torchrun describes in the environment; `ALONE` where it did not start this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), dist.get_world_size())


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
