"""refineloc-synth as a program: files, exit codes, one-line errors."""

import subprocess
import sys
from pathlib import Path

import programs
import pytest

from refineloc.runtime.annotations import read_annotations


def synth(*args):
    """Run refineloc-synth in a pipe."""
    return programs.run("refineloc-synth", *args, cwd=Path("/"))


def test_writes_both_splits_and_is_quiet_on_stdout(tmp_path):
    done = synth(tmp_path / "new" / "data", "--videos", 4, "--classes", 2, "--dim", 8, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "4 videos" in done.stderr
    assert len(read_annotations(tmp_path / "new" / "data" / "train.csv")) == 4
    assert len(read_annotations(tmp_path / "new" / "data" / "val.csv")) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--classes", 1), "classes"),
        (("--videos", 0), "--videos"),
        (("--videos", 5), "videos: expected at least one a class (6), got 5"),
    ],
)
def test_a_bad_option_is_named_and_ends_with_2(tmp_path, options, named):
    done = synth(tmp_path, *options)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_existing_files_need_force(tmp_path):
    options = (tmp_path, "--videos", 2, "--classes", 2, "--dim", 8)
    assert synth(*options).returncode == 0
    refused = synth(*options)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--force" in refused.stderr
    assert synth(*options, "--force").returncode == 0


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = synth(tmp_path / "file" / "data", "--videos", 6)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_needs_no_torch():
    code = "import sys; import refineloc.training.sample.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
