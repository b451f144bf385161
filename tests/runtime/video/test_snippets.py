import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refineloc.runtime.video.snippets import snippet_count, windows_of


def plain(steps, window, stride):
    """All windows, the last one filled up: by slices of the whole film."""
    count = snippet_count(len(steps), window, stride)
    padded = np.concatenate([steps, np.repeat(steps[-1:], window + stride, axis=0)]) if count else steps
    return [padded[index * stride : index * stride + window] for index in range(count)]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 12), st.integers(1, 14), st.integers(1, 3))
def test_windows_of_parts_are_those_of_the_whole(sizes, window, stride, depth):
    total = sum(sizes)
    steps = np.arange(total * depth).reshape(total, depth)
    ends = np.cumsum(sizes).astype(int)
    parts = np.split(steps, ends[:-1]) if sizes else []
    got = list(windows_of(parts, window, stride))
    expected = plain(steps, window, stride)
    assert len(got) == len(expected) == snippet_count(total, window, stride)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counts():
    assert snippet_count(0, 16, 16) == 0
    assert snippet_count(1, 16, 16) == 1  # a film shorter than a snippet has one
    assert snippet_count(160, 16, 16) == 10
    assert snippet_count(167, 16, 16) == 10
    assert snippet_count(168, 16, 16) == 11  # half a stride is left
    assert snippet_count(100, 16, 4) == 22
    assert snippet_count(101, 16, 4) == 22
    assert snippet_count(102, 16, 4) == 23
