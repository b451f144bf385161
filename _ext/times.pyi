import numpy as np
import numpy.typing as npt

def seconds(
    first: npt.NDArray[np.float64], last: npt.NDArray[np.float64], grid: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def best_first(
    video: npt.NDArray[np.int64],
    label: npt.NDArray[np.int64],
    first: npt.NDArray[np.float64],
    last: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    grids: npt.NDArray[np.float64],
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.int64],
]: ...
