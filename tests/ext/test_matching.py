"""What the kernels of matching take: checks of the arrays as the loops see them, after every conversion."""

from typing import Any

import numpy as np
import pytest

from refineloc._ext.matching import average_precision, match
from refineloc._ext.nms import hard_nms

ONE = {"start": [0.0, 5.0], "end": [2.0, 7.0], "truth_start": [0.0], "truth_end": [2.0], "thresholds": [0.5]}


@pytest.mark.parametrize(
    "bounds",
    [
        [0, 10**9, 1],  # not rising, in any type
        [0, 2**62, -(2**63), -(2**62), 1],  # differences that wrap
        [0, 2],
        [1, 1],
        [-1, 1],
        [],
    ],
)
def test_bounds_that_do_not_rise_within_the_arrays_are_refused(bounds: list[int]) -> None:
    for dtype in (np.int64, np.int32) if max(map(abs, bounds), default=0) < 2**31 else (np.int64,):
        with pytest.raises(ValueError, match="rising bounds"):
            match(**ONE, group=[0, -1], truth_bounds=np.array(bounds, dtype))
        if bounds != [1, 1]:  # detections that belong to no class may stand before those that do
            with pytest.raises(ValueError, match="rising bounds"):
                average_precision(np.ones((1, 1), np.int8), np.array(bounds, dtype), np.ones(max(len(bounds) - 1, 0)))


@pytest.mark.parametrize("values", [[np.nan, 1e9], [0.0, 1.0], np.array([0, 2**63], np.uint64), [None, 0], [0j, 1]])
def test_indices_that_int64_does_not_hold_are_refused(values: Any) -> None:
    with pytest.raises(TypeError, match="group: expected int64"):
        match(**ONE, group=values, truth_bounds=[0, 1])
    with pytest.raises(TypeError, match="truth_bounds: expected int64"):
        match(**ONE, group=[0, -1], truth_bounds=values)
    with pytest.raises(TypeError, match="class_bounds: expected int64"):
        average_precision(np.ones((1, 1), np.int8), values, np.ones(1))
    with pytest.raises(TypeError, match="group: expected int64"):
        hard_nms([0.0, 1.0], [1.0, 2.0], [1.0, 1.0], values, tiou_threshold=0.5)


@pytest.mark.parametrize("group", [[0, 1], [-2, 0], [0, 2**62], [0, -(2**63)]])
def test_groups_without_bounds_are_refused(group: list[int]) -> None:
    with pytest.raises(ValueError, match=r"group: expected -1 to 0, got -?\d+"):
        match(**ONE, group=group, truth_bounds=[0, 1])


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32, np.bool_, ">i8"])
def test_smaller_integers_and_other_byte_orders_are_taken(dtype: Any) -> None:
    group, bounds = np.array([0, 0], dtype), np.array([0, 1], dtype)
    assert match(**ONE, group=group, truth_bounds=bounds).tolist() == [[0, -1]]
    assert average_precision([[1, 0]], np.array([0, 2 % 256], "i8" if dtype == np.bool_ else dtype), [1.0]) == 1.0
    assert match([], [], [], [], [], [0], [0.5]).shape == (1, 0), "an empty list is of no type"


def test_arrays_that_are_not_aligned_are_taken() -> None:
    """As from np.frombuffer with an offset: loops of several numbers at a time may need alignment."""

    def shifted(values: Any) -> Any:
        array = np.asarray(values)
        moved = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype)
        moved[:] = array
        assert not moved.flags.aligned
        return moved

    found = match(
        shifted([0.0, 5.0]),
        shifted([2.0, 7.0]),
        shifted([0, -1]),
        shifted([0.0]),
        shifted([2.0]),
        shifted([0, 1]),
        [0.5],
    )
    assert found.tolist() == [[0, -1]]
    assert hard_nms(
        shifted([0.0, 1.0]), shifted([4.0, 5.0]), shifted([1.0, 2.0]), shifted([0, 0]), tiou_threshold=0.5
    ).tolist() == [1]
