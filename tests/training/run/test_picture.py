"""The picture that `refineloc-train` leaves: of which video, when, and what is said where there is none."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from small_data import arguments, files, write_data

from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.detections import read_detections
from refineloc.training.data.inputs import read_inputs
from refineloc.training.run.files import Run, load_iteration
from refineloc.training.run.picture import draw_run
from refineloc.training.scoring import predict

pytest.importorskip("matplotlib", reason="time lines need refineloc[plot]")

FILES = arguments()
SHORT = ["--iterations", "2", "--epochs", "2", "--run", "run"]
PNG = b"\x89PNG\r\n\x1a\n"


def train(data: Path, *further: str, before: str = "") -> str:
    """`refineloc-train`, after some other lines of Python; gives its last line."""
    done = programs.run("refineloc-train", *FILES, *SHORT, *further, cwd=data, before=before)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a finished run of two iterations with its picture."""
    data = write_data(tmp_path_factory.mktemp("data"), np.random.default_rng(3))
    assert train(data) == "run/timeline.png: time line of a validation video"
    return data


@pytest.fixture
def data(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "data"))


def height(path: Path) -> int:
    import matplotlib.image

    return int(matplotlib.image.imread(path).shape[0])


def test_a_resumed_run_draws_too(data: Path) -> None:
    picture = data / "run" / "timeline.png"
    before, tall = picture.read_bytes(), height(picture)
    assert before.startswith(PNG)
    picture.unlink()
    train(data, "--resume")  # nothing is left to train
    assert picture.read_bytes() == before
    train(data, "--resume", "--iterations", "3")
    assert height(picture) - tall > 50, "a row more"


def test_without_matplotlib_there_is_a_line_and_a_finished_run(data: Path) -> None:
    (data / "run" / "timeline.png").unlink()
    before = "import sys; sys.modules |= {name: None for name in sys.modules if name.split('.')[0] == 'matplotlib'}"
    line = train(data, "--resume", before=before)
    assert line == "no time line: pictures need Matplotlib: pip install 'refineloc[plot]'"
    assert not (data / "run" / "timeline.png").exists()


class Drawer:
    """The finished run, and what its picture would show."""

    def __init__(self, data: Path) -> None:
        self.last = load_iteration(data / "run", 1)
        self.run = Run(data / "run", self.last.config, self.last.data, resume=True)
        self.val = read_inputs(files(data), self.last.config, 2**30).val

    def draw(self, annotations: Annotations) -> str:
        return draw_run(self.run, self.val, annotations)

    def asked(self, annotations: Annotations, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What is asked of `draw_timeline`."""
        shown: dict[str, Any] = {}

        def keep(path: Path, video: VideoAnnotation, rows: Any, **further: Any) -> None:
            shown.update(path=path, video=video, rows=rows, **further)

        with monkeypatch.context() as patch:
            patch.setattr("refineloc.training.run.picture.draw_timeline", keep)
            assert self.draw(annotations) == f"{self.run.folder / 'timeline.png'}: time line of a validation video"
        return shown


@pytest.fixture
def drawer(data: Path) -> Drawer:
    return Drawer(data)


def with_segments(annotations: Annotations, counts: Sequence[int]) -> Annotations:
    """The same videos, in order of name, with so many segments each."""
    videos = {}
    for name, count in zip(sorted(annotations), counts, strict=True):
        label = annotations[name].labels[0]
        start = np.arange(count, dtype=np.float64)
        videos[name] = VideoAnnotation(name, (label,), 60.0, 16.0, None, None, start, start + 0.5, (label,) * count)
    return Annotations(videos)


def test_the_video_in_the_middle_with_every_iteration_and_the_last_ones_scores(
    data: Path, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, val = drawer.last, drawer.val
    truth = read_annotations(data / "val.csv")
    # Sorted by segments: val05 (1), val03 (2), [val00 (3)], val02 (5), val01 (9); val04 has none and does not count.
    asked = drawer.asked(with_segments(truth, [3, 9, 5, 2, 0, 1]), monkeypatch)
    assert asked["video"].name == "val00"
    assert list(asked["rows"]) == ["iteration 0", "iteration 1"]
    for index, found in enumerate(asked["rows"].values()):
        assert list(found) == list(read_detections(data / f"run/iter_{index}/detections.json")["val00"])

    scores, snippets = predict(last.model, val), int(val.lengths[0])
    label = truth["val00"].labels[0]
    assert list(asked["curves"]) == ["foreground", label]
    column = val.classes.index(label)
    for name, whole in (("foreground", scores.foreground), (label, scores.class_scores[:, column])):
        seconds, values = asked["curves"][name]
        np.testing.assert_allclose(seconds, np.arange(snippets) + 0.5)  # 16 frames at 16 fps: a snippet a second
        np.testing.assert_allclose(values, whole[:snippets], rtol=1e-5)


def test_without_segments_the_number_of_detections_decides(
    data: Path, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_detections(data / "run/iter_1/detections.json")
    middle = sorted(drawer.val.names, key=lambda name: (len(found[name]), name))[3]
    none = with_segments(read_annotations(data / "val.csv"), [0] * 6)
    assert drawer.asked(none, monkeypatch)["video"].name == middle
    (data / "run/timeline.png").unlink()
    drawer.draw(none)
    assert (data / "run/timeline.png").read_bytes().startswith(PNG)


def test_a_length_that_no_file_states_is_that_of_the_snippets(
    data: Path, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = read_annotations(data / "val.csv")
    unknown = Annotations({name: dataclasses.replace(video, duration_s=None) for name, video in truth.items()})
    grids = tuple(dataclasses.replace(grid, duration_s=None) for grid in drawer.val.grids if grid is not None)
    drawer.val = dataclasses.replace(drawer.val, grids=grids)
    video = drawer.asked(unknown, monkeypatch)["video"]
    assert video.duration_s == drawer.val.lengths[drawer.val.names.index(video.name)]


def test_a_damaged_run_is_told_in_a_line(data: Path, drawer: Drawer) -> None:
    (data / "run/iter_0/detections.json").unlink()
    line = drawer.draw(read_annotations(data / "val.csv"))
    assert line.startswith(f"no time line: {data / 'run/iter_0/detections.json'}: no such file")
