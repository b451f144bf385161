"""Several processes that train one model together: each takes a share of every batch's videos.

    torchrun --nproc-per-node 2 -m -- refineloc.training TRAIN.h5 TRAIN.csv ... --run runs/NAME

All processes draw the same weights, orders and pseudo labels from the same seeds; what they add up is the gradient of a
batch and the sums over the validation videos. So the batch stays the batch of one process, and the result is the same
but for the order of additions. Not so with dropout (W-TALC, BaS-Net), whose draws are each process's own: such a run is
another one with another number of processes. `fit` seeds them for each epoch, so that a resumed run of as many
processes ends as one that was not killed. A video is never split; a process may have none of a small last batch, for
which a wrapper that averages gradients (DDP) has no place: the gradients, a few MB, are added in one call after
`backward`.

What can fail in one process alone (files are read and written) is done by `Group.agree`: then all end, with one line.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from refineloc.runtime.errors import RefineLocError

__all__ = ["ALONE", "Group", "SharedError", "join", "one_voice"]

Item = TypeVar("Item")


class SharedError(RefineLocError):
    """What one process failed with, raised in all of them."""


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

    def agree(self, step: Callable[[], Item]) -> Item:
        """What a step gives, which every process does.

        Raises:
            SharedError: it failed in one of several processes; in all of them, so that none waits for another.
        """
        if self.size == 1:
            return step()
        done: list[Item] = []
        failed: Exception | None = None
        try:
            done.append(step())
        except (RefineLocError, OSError, MemoryError) as error:
            failed = error
        # As text: not every exception can be sent.
        said: list[str | None] = [None] * self.size
        dist.all_gather_object(said, None if failed is None else str(failed) or "out of memory")
        first = next((rank for rank, text in enumerate(said) if text is not None), None)
        if first is not None:
            same = said[0] is not None
            raise SharedError(str(said[first]) if same else f"process {first}: {said[first]}") from failed
        return done[0]

    def leave(self) -> None:
        """At the end of all."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Group()


def join(device: torch.device) -> Group:
    """The group that torchrun describes in the environment; `ALONE` where it did not start this process."""
    if not _processes() > 1:
        return ALONE
    if not dist.is_initialized():
        cuda = device.type == "cuda"
        # Small things, such as what `agree` sends, go by gloo.
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", device_id=device if cuda else None)
    return Group(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Of several processes that fail together the first says why, and all end with exit code 2.

    A process that fails alone says so itself; torchrun then ends the others, which may lose the connection before.
    """
    if not _processes() > 1:
        yield
        return
    rank = int(os.environ.get("RANK", "0"))
    try:
        yield
    except SharedError as error:
        if rank == 0:
            _say(str(error))
        # The first that ends makes torchrun end the others: not before the line is said.
        with contextlib.suppress(RuntimeError):
            dist.barrier()
        sys.exit(2)
    except RefineLocError as error:
        _say(f"process {rank}: {error}")
        sys.exit(2)
    except RuntimeError as error:
        if "peer" not in str(error) and "closed" not in str(error):
            raise
        if rank == 0:
            _say("another process of this run has ended; if it said nothing, it was killed (out of memory?)")
        sys.exit(2)


def _say(message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
