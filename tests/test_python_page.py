"""The blocks of docs/reference/python.md run, one after another, as a reader would run them."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs/reference/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.long
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "docs/reference/python.md", "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert "0 lost" in capsys.readouterr().out
    best = names["detections"][0]
    assert best.label == "jump"
    assert (best.start, best.end) == pytest.approx((12.8, 25.6), abs=2)
    assert names["evaluation"].average_mAP > 0.5
