import numpy as np
import numpy.typing as npt

def detect_points(
    scores: npt.NDArray[np.float32],
    to_start: npt.NDArray[np.float32],
    to_end: npt.NDArray[np.float32],
    video_scores: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    *,
    top_k: int,
    least: float,
    class_threshold: float = 0.0,
    levels: int = 1,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
]: ...
