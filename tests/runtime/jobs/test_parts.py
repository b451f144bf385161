"""Parts: whole or absent whatever happens, done again where they are damaged, and merged only if all are there."""

import json
import mmap
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from small_job import UpperCase, job

from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.files import TEMPORARY
from refineloc.runtime.jobs.blocks import Block, Row
from refineloc.runtime.jobs.parts import check_job, done, holds_parts, locked, merge, remove_parts, write_part
from refineloc.runtime.jobs.run import run_blocks

WORK = UpperCase()


def write(blocks: list[Block], work: UpperCase = WORK) -> None:
    for _ in run_blocks(work, [block for block in blocks if not done(block, work)]):
        pass


def values(folder: Path) -> dict[str, Any]:
    return {row["video"]: row.get("value") for _, row in merge(folder).rows}


EXPECTED = {f"v{index}": f"V{index}" for index in range(9)}


def test_what_is_written_is_merged_in_the_order_of_the_job(tmp_path: Path) -> None:
    for shard in (3, 1, 2):
        assert not holds_parts(tmp_path) or shard != 3
        write(job(tmp_path, shard=shard))
    assert list(values(tmp_path).items()) == list(EXPECTED.items())
    assert merge(tmp_path).about == {"who": "me"}
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"part-0000{number}.jsonl" for number in (1, 2, 3)]
    remove_parts(tmp_path)
    assert not tmp_path.exists()


def test_a_step_for_each_video_and_one_for_the_part(tmp_path: Path) -> None:
    (block,) = job(tmp_path)
    steps = []
    for step in write_part(block, WORK.process(block)):
        assert block.part.exists() == bool(step.written)
        steps.append((step.videos, [video for video, _ in step.written]))
    assert steps == [(1, []), (1, []), (1, []), (0, ["v0", "v1", "v2"])]


def lines_until_the_end(folder: Path, kill_at: int) -> int:
    """Do a job in a process that kills itself at a line of Python; gives how many it ran, 0 if it was killed."""
    folder.mkdir(exist_ok=True)
    counted = mmap.mmap(-1, 8)
    child = os.fork()
    if child == 0:
        lines = 0

        def step(*_: Any) -> Any:
            nonlocal lines
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step

        blocks = job(folder, shards=1)
        sys.settrace(step)
        write(blocks)
        sys.settrace(None)
        counted[:8] = lines.to_bytes(8, "little")
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == (-signal.SIGKILL if not int.from_bytes(counted[:8], "little") else 0)
    return int.from_bytes(counted[:8], "little")


@pytest.mark.parametrize("moments", [12, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_any_moment_it_ends_with_the_same_parts(tmp_path: Path, moments: int) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    write(job(whole, shards=1))  # modules that are loaded on first use are no lines of the job
    remove_parts(whole)
    lines = lines_until_the_end(whole, 0)
    expected = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert len(expected) == 3
    for number in range(moments):
        assert not lines_until_the_end(folder, 1 + number * (lines - 1) // moments)
        # What is there is right, and the rest is done again.
        for path in folder.iterdir():
            assert path.name.startswith(TEMPORARY) or path.read_bytes() == expected[path.name]
        write(job(folder, shards=1))
        assert {path.name: path.read_bytes() for path in folder.glob("part-*")} == expected
        remove_parts(folder)
        assert not folder.exists()


def test_a_part_that_lost_its_end_is_done_again(tmp_path: Path) -> None:
    (block,) = job(tmp_path, shards=1, count=3)
    write([block])
    content = block.part.read_bytes()
    for length in range(len(content) - 1):  # without the last line end it is whole
        block.part.write_bytes(content[:length])
        assert not done(block, WORK)
        with pytest.raises(InputError, match="is damaged; remove the file"):
            values(tmp_path)
    check_job(tmp_path, block)  # of no other job
    write([block])
    assert block.part.read_bytes() == content


HEAD = {"part": 1, "parts": 3, "shards": 3, "videos": 3, "job": {"model": "m"}, "about": {}}


@pytest.mark.parametrize(
    "head",
    [
        "5",
        "[]",
        "[" * 5000,
        "\ud800",
        *(json.dumps({**HEAD, key: value}) for key in HEAD for value in (None, -1, 0.5, "3", 10**30, [])),
        json.dumps({**HEAD, "part": 4}),
        json.dumps({**HEAD, "part": 2}),  # a copy under another name
        json.dumps({**HEAD, "parts": 4}),
        *(json.dumps({**HEAD, "about": {"external_data": value}}) for value in (float("inf"), float("nan"))),
    ],
)
def test_heads_that_nothing_of_ours_wrote(tmp_path: Path, head: str) -> None:
    (block,) = job(tmp_path)
    write([block])
    block.part.write_text(head + "\n", encoding="utf-8", errors="surrogatepass")
    assert not done(block, WORK)
    with pytest.raises(InputError, match=r"part-00001.jsonl: line 1: is damaged"):
        merge(tmp_path)


@pytest.mark.parametrize(
    "row", ["5", "[]", "{}", '{"video": 7}', '{"video": "v2", "error": 3}', '{"video": "v2"}', "{", "[" * 5000]
)
def test_rows_that_nothing_of_ours_wrote(tmp_path: Path, row: str) -> None:
    (block,) = job(tmp_path)
    write([block])
    lines = block.part.read_text().splitlines()
    block.part.write_text("\n".join([*lines[:-1], row]) + "\n")
    assert not done(block, WORK)
    write([block])
    assert done(block, WORK)


def test_an_error_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    (block,) = job(tmp_path)
    write([block], UpperCase(bad="v1"))
    assert json.loads(block.part.read_text().splitlines()[2]) == {"video": "v1", "error": "bad"}
    assert not done(block, WORK)
    # Done, once that video is left out, and not for a run that wants another one less.
    assert done(Block(("v0", "v2"), block.part, block.head), WORK)
    assert not done(Block(("v0",), block.part, block.head), WORK)
    write([block])
    assert done(block, WORK)


def test_parts_of_another_job_are_refused(tmp_path: Path) -> None:
    first, second = job(tmp_path), job(tmp_path, shard=2, model="other")
    write(first)
    before = first[0].part.read_bytes()
    with pytest.raises(InputError, match=r"given something else \(model\); remove"):
        check_job(tmp_path, second[0])
    with pytest.raises(InputError, match=r"given something else \(shards\)"):
        check_job(tmp_path, job(tmp_path, shards=4)[0])
    assert first[0].part.read_bytes() == before
    # Two that began at the same moment.
    write(second)
    with pytest.raises(InputError, match=r"part-00002.jsonl and .*part-00001.jsonl are of runs that .* \(model\)"):
        merge(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without parts"):
        merge(tmp_path)
    for shard in (1, 2, 3):
        write(job(tmp_path, count=18, shard=shard))
    for number in (1, 5, 6):
        (tmp_path / f"part-0000{number}.jsonl").unlink()
    with pytest.raises(InputError, match=r"parts 1, 5-6 of 6 are missing; run shards 1, 3 of 3 again$"):
        merge(tmp_path)


def test_a_message_of_missing_parts_is_short_however_many_there_are(tmp_path: Path) -> None:
    write(job(tmp_path, shards=100, shard=1))
    for number in range(2, 100, 2):
        write(job(tmp_path, shards=100, shard=number))
    with pytest.raises(InputError, match=r"parts 3, 5, .*, 41, \.\.\. of 100 are missing; run shards 3, "):
        merge(tmp_path)
    for path in tmp_path.glob("part-000[1-9]*"):
        path.unlink()
    (path, *others) = sorted(tmp_path.glob("part-*"))
    for other in others:
        other.unlink()
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(head), "parts": 10**6, "shards": 10**6}), *rows]))
    with pytest.raises(InputError, match=r"parts 2-1000000 of 1000000 are missing"):
        merge(tmp_path)


def test_more_shards_than_videos_are_harmless(tmp_path: Path) -> None:
    for shard in range(1, 31):
        write(job(tmp_path, shard=shard, shards=30))
    assert values(tmp_path) == EXPECTED


def test_no_video_is_merged_twice(tmp_path: Path) -> None:
    for shard in (1, 2, 3):
        write(job(tmp_path, shard=shard))
    second = tmp_path / "part-00002.jsonl"
    second.write_text(second.read_text().replace('"v3"', '"v1"'))
    with pytest.raises(InputError, match=r"part-00002.jsonl: line 2: video 'v1' is there twice"):
        values(tmp_path)


def test_other_files_are_of_no_concern(tmp_path: Path) -> None:
    names = ["slurm-17.out", ".DS_Store", "part-1.jsonl", "part-00001.jsonl.gz", "part-00009.json"]
    for name in names:
        (tmp_path / name).write_text("x")
    (tmp_path / "part-00077.jsonl").mkdir()
    assert not holds_parts(tmp_path)
    write(job(tmp_path, shards=1))
    (tmp_path / f"{TEMPORARY}abcdefgh.jsonl").write_text("killed")
    assert values(tmp_path) == EXPECTED
    remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "part-00077.jsonl"])


def test_a_full_disk_leaves_the_parts_before(tmp_path: Path) -> None:
    class Full(UpperCase):
        def process(self, block: Block) -> Any:
            for row in super().process(block):
                yield row
                if row["video"] == "v4":
                    raise OSError(28, "No space left on device")

    blocks = job(tmp_path, shards=1)
    with pytest.raises(OutputError, match=r"part-00002.jsonl: cannot be written: no space left"):
        write(blocks, Full())
    assert [path.name for path in tmp_path.iterdir()] == ["part-00001.jsonl"]
    write(blocks)
    assert values(tmp_path) == EXPECTED


def test_one_process_at_a_time_has_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "d.json.partial"
    folder.mkdir()
    with locked(folder):
        with pytest.raises(InputError, match="another run is writing it"), locked(folder):
            pass
        remove_parts(folder)
    with pytest.raises(InputError, match="another run is writing it"), locked(folder):
        pass


def test_twice_at_the_same_time_is_the_same_part(tmp_path: Path) -> None:
    (block,) = job(tmp_path)
    first, second = (write_part(block, WORK.process(block)) for _ in range(2))
    for _ in zip(first, second, strict=True):
        pass
    content = block.part.read_bytes()
    rows: list[Row] = [json.loads(line) for line in content.splitlines()[1:]]
    assert [row["video"] for row in rows] == list(block.names)
    assert list(tmp_path.iterdir()) == [block.part]
