import numpy as np
import numpy.typing as npt

def match(
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    group: npt.NDArray[np.int64],
    truth_start: npt.NDArray[np.float64],
    truth_end: npt.NDArray[np.float64],
    truth_bounds: npt.NDArray[np.int64],
    thresholds: npt.NDArray[np.float64],
) -> npt.NDArray[np.int32]: ...
def average_precision(
    hits: npt.NDArray[np.int8],
    class_bounds: npt.NDArray[np.int64],
    positives: npt.NDArray[np.float64],
    *,
    weights: npt.NDArray[np.float64] | None = None,
    interpolated: bool = True,
) -> npt.NDArray[np.float64]: ...
