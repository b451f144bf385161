from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def detect_proposals(
    class_scores: npt.NDArray[np.float32],
    foreground: npt.NDArray[np.float32],
    video_scores: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    *,
    thresholds: Sequence[float],
    top_k: int,
    scoring: str,
    class_threshold: float = 0.0,
    curve: str = "class",
    scored_on: str = "class",
    outer: float = 0.25,
    length_power: float = 0.0,
    video_term: str = "add",
    video_weight: float = 0.2,
    max_gap: int = 0,
    widen: int = 0,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
]: ...
