import numpy as np
import numpy.typing as npt

def best_snippet_scores(
    class_scores: npt.NDArray[np.float32],
    foreground: npt.NDArray[np.float32],
    lengths: npt.NDArray[np.int64],
    *,
    share: float,
) -> npt.NDArray[np.float32]: ...
