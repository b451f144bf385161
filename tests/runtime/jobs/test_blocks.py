"""Blocks and shards: every video once, of about equal size, and the same on every machine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.jobs.blocks import Block, plan_blocks, split_evenly

SIZES = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 10**12)), max_size=60)


@pytest.mark.parametrize(
    ("sizes", "count", "ends"),
    [
        # The middles are at 1, 3, 5, 7 of 8, the stretches end at 4 and 8.
        ([2, 2, 2, 2], 2, [2, 4]),
        # At 1, 5, 9 of 10, and 5 is where the second stretch begins.
        ([2, 6, 2], 2, [1, 3]),
        # One that fills three of four stretches, with its middle at 4 of 10: the others have none before it.
        ([8, 1, 1], 4, [0, 1, 1, 3]),
        ([5], 3, [0, 1, 1]),
        ([], 2, [0, 0]),
    ],
)
def test_a_video_is_where_its_middle_lies(sizes: list[int], count: int, ends: list[int]) -> None:
    assert [block.stop for block in split_evenly(sizes, count)] == ends


@given(SIZES, st.integers(1, 80))
def test_every_video_once_and_shares_as_equal_as_the_largest_video_allows(sizes: list[int], count: int) -> None:
    blocks = split_evenly(sizes, count)
    assert len(blocks) == count
    assert [size for block in blocks for size in sizes[block]] == sizes
    for block in blocks:
        assert abs(count * sum(sizes[block]) - sum(sizes)) <= count * max(sizes, default=0)


@given(SIZES, st.integers(1, 9), st.integers(1, 9))
def test_blocks_in_a_row_are_a_shard(sizes: list[int], shards: int, each: int) -> None:
    fine, coarse = split_evenly(sizes, shards * each), split_evenly(sizes, shards)
    for number, shard in enumerate(coarse):
        own = fine[number * each : (number + 1) * each]
        assert [size for block in own for size in sizes[block]] == sizes[shard]


def plan(videos: dict[str, int], shard: int = 1, shards: int = 1, *left_out: str) -> list[Block]:
    sizes = {"limit": 50, "shard": shard, "shards": shards, "left_out": frozenset(left_out)}
    return plan_blocks(Path("parts"), videos, {"model": "m"}, {}, **sizes)  # type: ignore[arg-type]


@given(SIZES.map(lambda sizes: [size % 100 + 1 for size in sizes]), st.integers(1, 20))
def test_shards_are_disjoint_and_complete(sizes: list[int], shards: int) -> None:
    videos = {f"v{index}": size for index, size in enumerate(sizes)}
    blocks = [block for shard in range(1, shards + 1) for block in plan(videos, shard, shards)]
    assert [name for block in blocks for name in block.names] == list(videos)
    assert [block.head["part"] for block in blocks] == list(range(1, len(blocks) + 1))
    assert {block.head["parts"] for block in blocks} == {len(blocks)}
    assert len({block.part for block in blocks}) == len(blocks)
    # Of about the size asked for: no block has more than 50 and its share of two videos.
    assert all(sum(videos[name] for name in block.names) <= 50 + 100 for block in blocks)


def test_what_is_left_out_moves_no_other_video() -> None:
    videos = {f"v{index}": 30 for index in range(9)}
    whole, without = plan(videos, 2, 3), plan(videos, 2, 3, "v4", "v8")
    assert [block.part for block in whole] == [block.part for block in without]
    assert [[n for n in block.names if n != "v4"] for block in whole] == [list(block.names) for block in without]
