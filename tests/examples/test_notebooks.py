"""The notebooks: as they are kept (without outputs, with words before each cell), and run from first cell to last."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from waiting import LAST_RESORT_S

nbformat = pytest.importorskip("nbformat")
FOLDER = Path(__file__).resolve().parents[2] / "examples/notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=nbformat.NO_CONVERT)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.metadata.kernelspec.name) == (4, "python3")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_words_lead_to_each_cell_and_to_pages_that_are_there(name: str) -> None:
    cells = read(name).cells
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"
    for before, cell in itertools.pairwise(cells):
        assert "markdown" in (before.cell_type, cell.cell_type), cell.source
    links = re.findall(r"\]\(([^)#]+)", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    assert links
    assert [link for link in links if not (FOLDER / link).is_file()] == []


def test_the_first_has_ten_cells() -> None:
    assert sum(cell.cell_type == "code" for cell in read("features_to_report.ipynb").cells) == 10


# What the words of a notebook say of its outputs, as patterns of what it prints; in a group a number above 0.
SAID = {
    "a_base_of_your_own.ipynb": [r"the same validation loss: ([\d.]+)", r"<Detector .*mine\.onnx: mine\.py"],
    "features_to_report.ipynb": [r"(\d+) detections compared, 0 lost", r"average mAP ([\d.]+) %, 95 % interval"],
    "why_a_detection_is_wrong.ipynb": [
        r"localization +(\d[\d.]+) %",
        r"wrong label +0\.\d %",
        r"begins ([\d.]+) s too early, ends ([\d.]+) s too late",
        r"difference, 95 % interval: \+([\d.]+) to",
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("ipykernel")
    nbclient = pytest.importorskip("nbclient")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):  # nothing is left elsewhere
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "work").mkdir()
    notebook = read(name)
    about = {"metadata": {"path": str(tmp_path / "work")}}
    nbclient.NotebookClient(notebook, timeout=LAST_RESORT_S, kernel_name="python3", resources=about).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    for pattern in SAID[name]:
        match = re.search(pattern, printed)
        assert match, (pattern, printed)
        assert all(float(number) > 0 for number in match.groups())
    assert any("image/png" in output.get("data", {}) for output in outputs)
    if name == "features_to_report.ipynb":
        files = {path.name for path in (tmp_path / "work/features_to_report").iterdir()}
        assert files == {"model.onnx", "detections.json", "timeline.png", "report.html"}
        first, *_, last = [
            float(row)
            for row in re.findall(r"^ +\d +[\d.]+ +\d+ +[\d.]+(?: +[\d.]+){3} +([\d.]+)", printed, re.MULTILINE)
        ]
        assert last > first  # what refinement gave


def test_each_is_spoken_of() -> None:
    assert set(SAID) == set(NOTEBOOKS)
    index = (FOLDER.parents[1] / "docs/how-to/index.md").read_text(encoding="utf-8")
    assert [name for name in NOTEBOOKS if f"(../../examples/notebooks/{name})" not in index] == []
