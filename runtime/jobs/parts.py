"""The parts of a job: a folder with a file for each block, which says what is done, and of which the result is merged.

    part-00003.jsonl    {"part": 3, "parts": 64, "shards": 64, "videos": 2, "job": {...}, "about": {...}}
                        {"video": "v7", ...}                    a row a video, in the order of the job
                        {"video": "v8", "error": "why"}

A part is there whole or not at all: it is written aside, flushed to the disk and renamed. It says itself which part of
which job it is, so that parts can be moved and copied, and machines that share a folder need no lock: who does a block
twice writes the same file twice.
"""

import collections
import contextlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refineloc.runtime.addresses import Address
from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.files import TEMPORARY, atomic_write, reason
from refineloc.runtime.jobs.blocks import MAX_PARTS, Block, Outcome, Row, Step, Work, part_name
from refineloc.runtime.locks import try_lock

__all__ = [
    "Merged",
    "check_job",
    "damaged",
    "done",
    "holds_parts",
    "is_part",
    "locked",
    "merge",
    "remove_parts",
    "take_over",
    "undone",
    "write_part",
]

_NAME = re.compile(r"part-[0-9]{5,}\.jsonl")
_LOCK = ".lock"
_SHOWN = 20  # ranges of missing parts in a message


class Merged(NamedTuple):
    """All parts of a job.

    Attributes:
        about: what the first part says of the job.
        rows: of all videos, in the order of the job; where each is ("FILE: line N"), and the row.
    """

    about: Mapping[str, Any]
    rows: Iterator[tuple[str, Row]]


def write_part(block: Block, rows: Iterable[Row]) -> Iterator[Step]:
    """Write the part of a block; gives a step for each row, and one when the part is there.

    Raises:
        OutputError: it cannot be written, such as on a full disk.
    """
    written = []
    with atomic_write(block.part) as handle:
        handle.write(json.dumps(block.head, allow_nan=False) + "\n")
        for row in rows:
            handle.write(json.dumps(row, allow_nan=False) + "\n")
            written.append(Outcome(row["video"], row.get("error", "")))
            yield Step(1)
    yield Step(0, written)


def done(block: Block, work: Work) -> bool:
    """Whether the part of a block is there, with a value for each of the block's videos and for no other.

    A part that is damaged, or that has an error, is not: its block is done again.
    """
    values = []
    try:
        if _head(block.part) is None:
            return False
        for where, row in _rows(block.part):
            if "error" not in row:
                work.check(row, where)
                values.append(row["video"])
            elif row["video"] in block.names:
                return False
    except InputError:
        return False
    return values == list(block.names)


def undone(blocks: Sequence[Block], work: Work) -> list[Block]:
    """The blocks, of one folder, that are not `done`; the folder is listed once, not asked for each part."""
    there = {path.name for block in blocks[:1] for path in block.part.parent.glob("part-*.jsonl")}
    return [block for block in blocks if block.part.name not in there or not done(block, work)]


def check_job(folder: Path, block: Block) -> None:
    """Check that all parts of a folder are of the job of a block.

    Damaged ones are left out: their blocks are done again.

    Raises:
        InputError: a part is of a job with other inputs, settings or shards.
    """
    for path in _parts(folder):
        head = None
        with contextlib.suppress(InputError):
            head = _head(path)
        if head is not None and (other := _difference(head, block.head)):
            raise InputError(
                f"{path}: is of a run that was given something else ({other}); remove {folder} to begin anew"
            )


def take_over(folder: Path, blocks: Sequence[Block]) -> None:
    """Give the parts of a job that had other videos before their places among its blocks, which have one video each.

    Those of another job stay as they are, for `check_job` to refuse. Parts that are damaged, of an error, or of a video
    that is no longer asked for are removed.
    """
    places = {name: block for block in blocks for name in block.names}
    kept: dict[str, tuple[Path, dict[str, Any], list[Row]]] = {}  # by video
    paths = _parts(folder)
    for path in paths:
        with contextlib.suppress(InputError):
            head, rows = _head(path), [row for _, row in _rows(path)]
            if head is None or head["job"] != blocks[0].head["job"]:
                return
            if len(rows) == 1 and "error" not in rows[0] and rows[0]["video"] in places:
                kept[rows[0]["video"]] = (path, head, rows)
    # All were read before the first is written. What a kill loses in between is done again.
    for video, (path, head, rows) in kept.items():
        block = places[video]
        if path != block.part or head != block.head:
            collections.deque(write_part(block, rows), maxlen=0)
    for path in set(paths) - {places[video].part for video in kept}:
        path.unlink()


def is_part(name: str) -> bool:
    """Whether a file of this name is a part."""
    return _NAME.fullmatch(name) is not None


def holds_parts(folder: Path) -> bool:
    """Whether a folder has a part."""
    return bool(_parts(folder))


def merge(folder: Path) -> Merged:
    """All rows of a job.

    Raises:
        InputError: a part is missing, damaged or of another job, also while the rows are read.
    """
    parts = {path: head for path in _parts(folder) if (head := _head(path)) is not None}
    if not parts:
        raise InputError(
            f"{folder}: is a folder without parts (part-00001.jsonl, ...); give a file, or the folder of a job"
        )
    path, head = next(iter(parts.items()))
    for other, its_head in parts.items():
        if difference := _difference(its_head, head):
            raise InputError(f"{other} and {path} are of runs that were given something else ({difference})")
    missing = {*range(1, head["parts"] + 1)} - {its_head["part"] for its_head in parts.values()}
    if missing:
        each = head["parts"] // head["shards"]
        shards = {-(-number // each) for number in missing}
        again = (
            f"run shards {_ranges(shards)} of {head['shards']} again" if head["shards"] > 1 else "the run did not end"
        )
        raise InputError(f"{folder}: parts {_ranges(missing)} of {head['parts']} are missing; {again}")
    return Merged(head["about"], _all_rows(parts))


def damaged(where: str) -> InputError:
    """The error of a part that nothing of ours wrote so, or that lost its end."""
    return InputError(f"{where}: is damaged; remove the file, and run what it was of again")


def remove_parts(folder: Path, beside: str = "") -> None:
    """Remove all parts, what a kill left of one, and the folder; what else lies in it stays, and the folder with it.

    `beside` ends the names of what the work wrote beside its parts, such as ".npy".
    """
    payloads = folder.glob(f"part-*{beside}") if beside else ()
    for path in (*_parts(folder), *payloads, *folder.glob(f"{TEMPORARY}*"), folder / _LOCK):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; it ends with this process, however that ends.

    Raises:
        InputError: another process has it.
    """
    if os.name == "nt" or isinstance(folder, Address):
        # Windows has no such locks, and removes no file that is open; a store has none: what is written twice is equal.
        yield
        return
    busy = InputError(f"{folder}: another run is writing it; wait for that, or give another output")
    path = folder / _LOCK
    try:
        file = path.open("ab")
    except FileNotFoundError:  # the other run has just ended and removed it
        raise busy from None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {reason(error)}") from error
    with file:
        if not try_lock(file.fileno()):
            raise busy
        try:
            same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except FileNotFoundError:
            same = False
        if not same:
            raise busy
        yield


def _parts(folder: Path) -> list[Path]:
    """The files with a part's name, in the order of the parts; others in the folder are of no concern."""
    paths = [path for path in folder.glob("part-*.jsonl") if is_part(path.name) and path.is_file()]
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def _head(path: Path) -> dict[str, Any] | None:
    """What a part says of itself; None where there is no such file (any more).

    Raises:
        InputError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            head = _value(file.readline(), f"{path}: line 1")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from error
    if not isinstance(head, dict) or not _is_head(head) or path.name != part_name(head["part"]):
        raise damaged(f"{path}: line 1")
    return head


def _is_head(head: dict[str, Any]) -> bool:
    counts = [head.get(key) for key in ("part", "parts", "shards", "videos")]
    if not all(type(count) is int and 0 <= count <= MAX_PARTS for count in counts):
        return False
    if not (0 < head["part"] <= head["parts"] and head["shards"] and head["parts"] % head["shards"] == 0):
        return False
    return isinstance(head.get("job"), dict) and isinstance(head.get("about"), dict)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a part and where each is; at its end an error if there are fewer or more than its head says."""
    head, count = _head(path), 0
    with path.open("rb") as file:
        file.readline()
        for line in file:
            count += 1
            where = f"{path}: line {count + 1}"
            row = _value(line, where)
            if not isinstance(row, dict) or not isinstance(row.get("video"), str):
                raise damaged(where)
            if not isinstance(row.get("error", ""), str):
                raise damaged(where)
            yield where, row
    if head is None or count != head["videos"]:
        raise damaged(f"{path}")


def _all_rows(paths: Iterable[Path]) -> Iterator[tuple[str, Row]]:
    known: set[str] = set()
    for path in paths:
        for where, row in _rows(path):
            if row["video"] in known:
                raise InputError(f"{where}: video {row['video']!r} is there twice")
            known.add(row["video"])
            yield where, row


def _difference(head: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What two parts' jobs differ in; "" where they are the same."""
    jobs = head["job"], other["job"]
    keys = [key for key in {**jobs[0], **jobs[1]} if jobs[0].get(key) != jobs[1].get(key)]
    keys += [key for key in ("shards", "parts") if head[key] != other[key]]
    return keys[0] if keys else ""


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN and infinity are no JSON, and no output can hold them


def _value(line: bytes, where: str) -> Any:
    try:
        return _DECODER.decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(where) from error


def _ranges(numbers: Collection[int]) -> str:
    """`5, 9-12` for whole numbers; the first ranges, where there are many."""
    known = set(numbers)
    begins = sorted(number for number in known if number - 1 not in known)
    ends = sorted(number for number in known if number + 1 not in known)
    ranges = [f"{begin}-{end}" if begin < end else f"{begin}" for begin, end in zip(begins, ends, strict=True)]
    return ", ".join(ranges if len(ranges) <= _SHOWN else [*ranges[:_SHOWN], "..."])
