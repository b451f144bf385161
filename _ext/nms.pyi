import numpy as np
import numpy.typing as npt

def hard_nms(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    *,
    tiou_threshold: float,
) -> npt.NDArray[np.int64]: ...
