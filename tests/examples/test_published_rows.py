"""examples/thumos14.py and activitynet.py: rows of the published data sets from features of the right shape."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def module(load_example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLES)
    return load_example


def write_split(features: Path, labels: Path, videos: int, rng: np.random.Generator) -> None:
    """Videos of 20 s at 30 fps, [T, 2048], with one action in the middle that the features show."""
    rows = ["video-name,t-start,t-end,label,video-duration,fps,video-num-frames"]
    with h5py.File(features, "w") as file:
        for index in range(videos):
            name, label = f"{features.stem}_{index:03}", index % 2
            values = rng.random((37, 2048), dtype=np.float32)
            values[12:24, 64 * label : 64 * label + 64] += 3
            file[name] = values
            rows.append(f"{name},6.4,12.8,{label},20,30,600")
    labels.write_text("\n".join(rows) + "\n")


@pytest.mark.long
@pytest.mark.parametrize(("script", "columns"), [("thumos14.py", 7), ("activitynet.py", 10)])
def test_a_row_in_one_command(
    script: str,
    columns: int,
    module: Callable[[str], ModuleType],
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = module(script)
    for split, name in (("train", example.DATA.train), ("test", example.DATA.test)):
        write_split(tmp_path / f"{split}.h5", tmp_path / name, 10, rng)
    arguments = [str(tmp_path), "--labels", str(tmp_path), "--out", str(tmp_path / "rows"), "--seeds", "1"]
    arguments += ["--base", "cmcs", "--set", "training.epochs=3", "--set", "training.iterations=2"]
    example.main(example.DATA, [*arguments, "--set", "training.learning_rate=0.01"])
    row = capsys.readouterr().out.splitlines()[-1].split("|")
    assert row[1].strip() == "cmcs"
    assert len(row) == 11
    assert float(row[7]) >= 0
    result = tmp_path / "rows" / example.DATA.name.replace(" ", "-") / "cmcs-seed0" / "result.json"
    assert len(json.loads(result.read_text())["mAP"]["1"]) == columns
    # A second call trains nothing.
    before = result.stat().st_mtime_ns
    example.main(example.DATA, arguments)
    assert result.stat().st_mtime_ns == before


def test_a_table_by_hand(module: Callable[[str], ModuleType]) -> None:
    rows = module("published_rows.py")
    data = rows.DataSet("Two", "a.csv", "b.csv", (0.5, 0.6), "thumos14-i3d")
    runs = [
        {"mAP": {"0": [0.1, 0.2], "3": [0.4, 0.3]}, "minutes": 2.0},
        {"mAP": {"0": [0.3, 0.1], "3": [0.2, 0.2]}, "minutes": 4.0},
    ]
    text = rows.table(data, {"cola": runs})
    assert text.splitlines()[-1] == "| cola | 2 | 20.0 | 17.5 | 15.0 | 30.0 | 27.5 | 20.0 | 3 |"


def test_the_rows_of_refineloc_are_the_papers_and_ours(module: Callable[[str], ModuleType]) -> None:
    example = module("thumos14.py")
    rows = module("published_rows.py").rows_of(example.DATA, ["cola", "refineloc"])
    assert rows["refineloc (paper)"] == ["--preset", "thumos14-i3d"]
    assert (rows["refineloc (auto)"], rows["cola"]) == ([], ["--base", "cola"])


def test_what_is_missing_is_said(module: Callable[[str], ModuleType], tmp_path: Path) -> None:
    example = module("thumos14.py")
    with pytest.raises(SystemExit, match="no such file; give --labels FOLDER"):
        example.main(example.DATA, [str(tmp_path), "--labels", str(tmp_path)])
    for name in (example.DATA.train, example.DATA.test):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=r"holds neither train\.h5 nor train/"):
        example.main(example.DATA, [str(tmp_path), "--labels", str(tmp_path), "--seeds", "1", "--base", "cola"])
