"""`refineloc-train --base NAME`, then export, detect and evaluate, as a person runs them."""

import json
from pathlib import Path

import programs
import pytest
from small_data import arguments

from refineloc.training.settings.bases import base_names

FILES = arguments()
OTHERS = [name for name in base_names() if name not in ("basnet", "refineloc")]


def run(program: str, *arguments: str, cwd: Path) -> None:
    done = programs.run(program, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("base", ["basnet", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_from_features_to_scores(base: str, data: Path) -> None:
    # Few steps of a high rate, for eight features: not the preset auto's.
    settings = ["--preset", "none", "--set", "training.learning_rate=1e-2", "--set", "training.batch_videos=4"]
    run(
        "refineloc-train",
        *FILES,
        "--base",
        base,
        "--iterations",
        "2",
        "--epochs",
        "8",
        *settings,
        "--run",
        "r",
        cwd=data,
    )
    run("refineloc-export", "r", "--iter", "1", "-o", "m.onnx", cwd=data)
    run("refineloc-detect", "val.h5", "--model", "m.onnx", "--videos", "val.csv", "-o", "d.json", cwd=data)
    tious = ["0.30", "0.50"]
    run("refineloc-eval", "d.json", "val.csv", "--tiou", ",".join(tious), "--json", "e.json", cwd=data)
    # What the file detects is what training found, but for rounding at a threshold.
    run(
        "refineloc-eval", "r/iter_1/detections.json", "val.csv", "--tiou", ",".join(tious), "--json", "t.json", cwd=data
    )
    ours, trained = (json.loads((data / name).read_text())["mAP"] for name in ("e.json", "t.json"))
    assert [ours[tiou] for tiou in tious] == pytest.approx([trained[tiou] for tiou in tious], abs=0.02)
    assert ours["0.30"] > 0.3, "one class in the middle third of each video is easy to find"
