"""Blocks: what a job is split into, the same ones on every machine that is given the same videos."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

__all__ = ["MAX_PARTS", "Block", "Outcome", "Row", "Step", "Work", "part_name", "plan_blocks", "split_evenly"]

MAX_PARTS = 10**6  # of a job; a folder of more files is slow everywhere, and a number of a damaged part may be any

# A value of each video, by "video", as JSON has it; or why there is none, by "error".
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive videos of a job that are done at one go; can be pickled.

    Attributes:
        names: the videos, in the order of the job; without those that are left out.
        part: the file of their rows (`parts.py`). What else the work writes, it writes beside that.
        head: what the part says of itself and of its job.
    """

    names: tuple[str, ...]
    part: Path
    head: Mapping[str, Any]


class Outcome(NamedTuple):
    """A video that is done; `error` says why it has no value, "" if it has."""

    video: str
    error: str


class Step(NamedTuple):
    """How a job went on.

    Attributes:
        videos: number of videos since the last step.
        written: the videos of a part, if one has just been written.
    """

    videos: int
    written: Sequence[Outcome] = ()


class Work(Protocol):
    """What is done with the videos of a block. It can be pickled, and opens what it needs in the process it runs in."""

    def process(self, block: Block) -> Iterator[Row]:
        """A row for each video of the block; depends on nothing but the work and the block.

        An error of one video is a row, {"video": NAME, "error": TEXT}. An error that is raised ends the job.
        """

    def check(self, row: Row, where: str) -> None:
        """Raise an InputError that begins with `where` if a row that was read is none that `process` gives."""


def split_evenly(sizes: Sequence[int], count: int) -> list[slice]:
    """Split consecutive videos into `count` blocks of about equal size; some may be empty.

    All videos, each once. A video is in that of `count` equal stretches of the total in which its middle lies. So the
    size of a block differs from an equal share by at most the largest video, and k blocks in a row of
    `split_evenly(sizes, k * n)` are one of `split_evenly(sizes, n)`.

    Args:
        sizes: of the videos, at least 1 each, in any unit that is proportional to the work.
        count: at least 1.
    """
    total, before = sum(sizes), 0
    ends = [0] * (count + 1)
    for index, size in enumerate(sizes):
        # Whole numbers, which every machine rounds alike.
        ends[(2 * before + size) * count // (2 * total) + 1] = index + 1
        before += size
    return [slice(begin, end) for begin, end in pairwise(accumulate(ends, max))]


def plan_blocks(
    folder: Path,
    videos: Mapping[str, int],
    job: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    limit: int,
    shard: int = 1,
    shards: int = 1,
    left_out: frozenset[str] = frozenset(),
) -> list[Block]:
    """The blocks of one shard of a job.

    Args:
        folder: of the parts.
        videos: their sizes, in the order of the merged result.
        job: inputs and settings, JSON values by name. Parts of a job with others are refused.
        about: what the merged result says of the job.
        limit: size of a block, roughly.
        shard: which, from 1.
        shards: how many there are.
        left_out: videos that no block has; the blocks are otherwise those of all videos.
    """
    names = list(videos)
    each = max(1, -(-sum(videos.values()) // (limit * shards)))  # blocks a shard
    slices = split_evenly(list(videos.values()), each * shards)
    blocks = []
    for number in range((shard - 1) * each, shard * each):
        kept = tuple(name for name in names[slices[number]] if name not in left_out)
        head = {"part": number + 1, "parts": len(slices), "shards": shards, "videos": len(kept)}
        blocks.append(Block(kept, folder / part_name(number + 1), {**head, "job": dict(job), "about": dict(about)}))
    return blocks


def part_name(number: int) -> str:
    """The name of a part's file; parts are counted from 1."""
    return f"part-{number:05}.jsonl"
