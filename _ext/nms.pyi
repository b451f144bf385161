from typing import Literal

import numpy as np
import numpy.typing as npt

def groups(video: npt.NDArray[np.int64], label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...
def hard_nms(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    *,
    tiou_threshold: float,
) -> npt.NDArray[np.int64]: ...
def vote_nms(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    *,
    tiou_threshold: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]: ...
def soft_nms(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    *,
    method: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    tiou_threshold: float = 0.3,
    min_score: float = 0.001,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]: ...
def fuse_nms(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    *,
    tiou_threshold: float,
    temperature: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
