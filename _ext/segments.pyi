import numpy as np
import numpy.typing as npt

def detect_segments(
    class_scores: npt.NDArray[np.float32],
    foreground: npt.NDArray[np.float32],
    attention: npt.NDArray[np.float32],
    video_scores: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    *,
    profile: str,
    alpha_a: float,
    alpha_c: float,
    top_k: int,
    max_gap: int = 1,
    widen: int = 2,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
]: ...
def segment_score(
    profile: str, class_mean: float, foreground_mean: float, attention_mean: float, video_score: float
) -> float: ...
