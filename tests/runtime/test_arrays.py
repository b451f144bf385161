"""Features and numbers in the types of other libraries: taken where their meaning is clear, else one line of error."""

import decimal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from refineloc.runtime import Detector, FeatureError, InputError, SnippetGrid, StreamingDetector
from refineloc.runtime.scalars import as_number, as_whole

WIDTH = 24


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Detector:
    return Detector(model_path, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def features() -> npt.NDArray[np.float32]:
    """Numbers that bfloat16 holds exactly."""
    values: npt.NDArray[np.float32] = np.random.default_rng(0).integers(-8, 8, (40, WIDTH)).astype(np.float32) / 4
    return values


class OnOtherDevice:
    """Stands for an array on a GPU, as CuPy's: NumPy cannot read it, DLPack copies it to the CPU."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.shape = array.shape

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **_: Any) -> Any:
        assert dl_device == (1, 0)
        return self._array.__dlpack__()


def test_tensors_of_torch_are_taken(detector: Detector, features: npt.NDArray[np.float32]) -> None:
    torch = pytest.importorskip("torch")
    expected = detector.scores(features).class_scores
    tensor = torch.from_numpy(features)
    for given in (
        tensor,
        tensor.clone().requires_grad_(),
        torch.nn.Parameter(tensor),
        tensor.bfloat16(),
        tensor.half(),
        tensor.double(),
        tensor.T.contiguous().T,
        list(tensor.clone().requires_grad_()),
        tuple(tensor.bfloat16()),
    ):
        assert np.array_equal(detector.scores(given).class_scores, expected)
    for bad in (tensor.to_sparse(), tensor.to("meta"), tensor.int(), tensor.bool(), tensor.to(torch.complex64)):
        with pytest.raises(FeatureError, match=r"^features: ") as caught:
            detector.scores(bad)
        assert "\n" not in str(caught.value)


def test_bfloat16_of_other_libraries_is_taken(detector: Detector, features: npt.NDArray[np.float32]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    expected = detector.scores(features).class_scores
    assert np.array_equal(detector.scores(features.astype(ml_dtypes.bfloat16)).class_scores, expected)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy 2.0 asks DLPack for no copy on the CPU"
)
def test_what_only_dlpack_moves_is_taken(detector: Detector, features: npt.NDArray[np.float32]) -> None:
    got: Any = OnOtherDevice(features)
    assert np.array_equal(detector.scores(got).class_scores, detector.scores(features).class_scores)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[1.0, 2.0], [1.0]], "cannot be read as an array"),
        ([np.ones(24), np.ones(23)], "cannot be read as an array"),
        (None, "got NoneType"),
        ({"v": 1}, "got dict"),
        ((row for row in np.ones((3, WIDTH))), "got generator"),
        ("features.npy", "expected features of shape T x D"),
        (25.0, "expected features of shape T x D"),
        (np.ones((3, WIDTH), dtype=object), "got ndarray"),
        (np.ones((3, WIDTH), dtype=[("a", np.float32)]), "got dtype"),
        (np.ones((3, WIDTH), dtype=complex), "got dtype complex128"),
        (np.ones((3, WIDTH), dtype="m8[s]"), "got dtype timedelta64"),
        (np.full((3, WIDTH), "1"), "got dtype <U1"),
        (np.full((3, WIDTH), 1e300), "snippet 0 holds inf"),
        (np.ma.masked_equal(np.eye(3, WIDTH), 1), "masked values"),
    ],
)
def test_other_kinds_are_one_error(detector: Detector, bad: Any, message: str) -> None:
    stream = StreamingDetector(detector, fps=25.0)
    for call in (lambda: detector.detect(bad, fps=25.0), lambda: stream.push(bad)):
        with pytest.raises(FeatureError, match=message) as caught:
            call()
        assert str(caught.value).startswith("features: ")
        assert "\n" not in str(caught.value)
        if str(bad).startswith("<generator"):
            break  # it is spent
    with pytest.raises(FeatureError, match=r"^video 'v': "):
        list(detector.detect_many({"v": bad}, fps=25.0))


def test_an_array_without_masked_values_is_taken(detector: Detector) -> None:
    assert len(detector.scores(np.ma.masked_equal(np.eye(3, WIDTH), 7)).foreground) == 3


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((3, WIDTH), dtype=np.int64), "got dtype int64"),
        (np.ones((3, WIDTH), dtype=bool), "got dtype bool"),
        (np.ones((0, WIDTH), dtype=np.int64), "got dtype int64"),
        (np.ones((0, 7), dtype=np.float32), "width 7"),
        (np.ones(WIDTH, dtype=np.float32), "got shape"),
        (np.full((2, WIDTH), np.nan), r"snippet 0 holds nan \(2 of 2 snippets do\)"),
    ],
)
def test_each_push_is_checked_alike(detector: Detector, first: bool, bad: Any, message: str) -> None:
    stream = StreamingDetector(detector, fps=25.0)
    if not first:
        stream.push(np.ones((4, WIDTH), dtype=np.float32))
    with pytest.raises(FeatureError, match=message):
        stream.push(bad)
    assert stream.snippets == (0 if first else 4)


@pytest.mark.parametrize(
    ("value", "number", "whole"),
    [
        (25, 25.0, 25),
        (25.0, 25.0, None),
        (Fraction(30000, 1001), 30000 / 1001, None),
        (Fraction(25), 25.0, None),
        (decimal.Decimal("29.97"), 29.97, None),
        (np.float32(25), 25.0, None),
        (np.longdouble(25), 25.0, None),
        (np.uint8(25), 25.0, 25),
        (np.array(25.0), 25.0, None),
        (np.array(25), 25.0, 25),
        (10**400, None, 10**400),
        *((value, None, None) for value in (None, True, np.True_, np.array(True), "25", b"25", 25j, [25.0])),
        *((value, None, None) for value in (np.array([25.0]), np.complex64(25), np.timedelta64(25, "s"))),
        (decimal.Decimal("sNaN"), None, None),
    ],
)
def test_numbers_of_other_libraries(value: Any, number: float | None, whole: int | None) -> None:
    assert (as_number(value), as_whole(value)) == (number, whole)


def test_settings_and_times_take_numbers_of_other_libraries(model_path: Path) -> None:
    grid = SnippetGrid(Fraction(30000, 1001), np.array(16), np.array(9.5))  # type: ignore[arg-type]
    assert grid == SnippetGrid(30000 / 1001, 16, 9.5)
    assert list(map(type, (grid.fps, grid.snippet_frames, grid.duration_s))) == [float, int, float]
    own: dict[str, Any] = {"top_k": np.array(3), "alpha_c": Fraction(1, 4), "threads": np.array(1)}
    detector = Detector(model_path, provider="cpu", batch_snippets=np.int32(100), **own)
    assert detector.settings == Detector(model_path, provider="cpu", top_k=3, alpha_c=0.25).settings
    with pytest.raises(InputError, match=r"^fps: expected") as caught:
        SnippetGrid(np.ones((2, 2)), 16)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda detector: list(detector.detect_many("features.h5")), r"videos: .*open_features\(PATH\)"),
        (lambda detector: list(detector.detect_many(Path("features.h5"))), r"videos: .*open_features\(PATH\)"),
        (lambda detector: list(detector.detect_many(7)), "videos: expected features, got 7"),
        (lambda detector: list(detector.detect_many(np.ones((3, WIDTH)))), "videos: expected pairs of name"),
        (lambda detector: list(detector.detect_many({"v": np.ones((3, WIDTH))}, times={"v": 25.0})), "times: video"),
        (lambda detector: StreamingDetector("model.onnx", fps=25.0), "detector: expected a Detector"),
        (lambda detector: StreamingDetector(detector, fps=25.0, max_open_snippets=None), "max_open_snippets"),
        (lambda detector: StreamingDetector(detector, fps=25.0, max_open_snippets=2.5), "max_open_snippets"),
    ],
)
def test_arguments_of_other_kinds_are_one_error(
    detector: Detector, call: Callable[[Detector], object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(detector)
    assert "\n" not in str(caught.value)


def test_axes_of_length_1_do_not_count(detector: Detector, features: npt.NDArray[np.float32]) -> None:
    expected = list(detector.detect(features, fps=25.0))
    for shape in ((1, 40, WIDTH), (40, 1, WIDTH), (40, 1, 1, WIDTH)):
        assert list(detector.detect(features.reshape(shape), fps=25.0)) == expected
    with pytest.raises(FeatureError, match=r"10 crops\? save their mean, features.mean\(axis=1\)"):
        detector.detect(np.repeat(features[:, None], 10, 1), fps=25.0)
