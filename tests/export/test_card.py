"""The card of a model file: what it says, where it says that something is unknown, and names that are only text."""

import ast
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from markdown_it import MarkdownIt
from small_model import PARITY, POINT, TUNING
from small_run import make_run

from refineloc.export import model_card, write_card
from refineloc.export.cli.export import main
from refineloc.runtime import OutputError
from refineloc.runtime.model.metadata import Parity

Export = Callable[..., CompletedProcess[str]]


@pytest.fixture
def export(call_program: Callable[..., CompletedProcess[str]]) -> Export:
    return functools.partial(call_program, main)


def parts(card: str) -> tuple[dict[str, object], str]:
    """The front matter as Hugging Face reads it, and the page as HTML."""
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), MarkdownIt("commonmark").enable("table").render(body)


def test_what_the_file_says(make_model: Callable[..., Path]) -> None:
    known = {
        "preset": "auto",
        "backbone": "ab12",
        "pseudo_labels": "fused",
        "licence": "CC-BY-4.0",
        "parity": PARITY,
        "tuning": TUNING,
        "operating_points": (POINT,),
        "iteration": 2,
    }
    model = make_model(**known)
    front, page = parts(model_card(model))
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "refineloc"
    assert {"temporal-action-localization", "weakly-supervised", "onnx"} <= set(front["tags"])
    assert front["metrics"] == ["mAP"]
    for words in (
        "actions of 5 classes",
        "jump, run, swim, throw, walk",
        "Detector(&quot;model.onnx&quot;)",
        "identity ab12",
        "<td>auto</td>",
        "of iteration 1; generator: fused",
        "with the rule that it had then: <strong>51.2 %</strong>",
        "val.h5: 4 videos, 240 snippets",
        "tuned on 2 annotated videos of five.csv (2026-11-27). Changed: top_k: 2 -&gt; 3.",
        "40.0 % before, 50.0 % after",
        "-5.0 points (standard error 2.0)",
        "<td>-0.41</td>",
        "12: 0 lost, 1 gained",
        hashlib.sha256(model.read_bytes()).hexdigest(),
        f"{model.stat().st_size:,} bytes",
    ):
        assert words in page
    assert "unknown" not in re.sub(
        r"videos and their labels</td>\s*<td>unknown|alarms.*?unknown|(chosen on the same videos|works less well,) is "
        r"unknown|<td>unknown</td>\s*<td>0\.5",
        "",
        page,
        flags=re.DOTALL,
    )


def test_what_the_file_does_not_say_is_unknown(make_model: Callable[..., Path]) -> None:
    front, page = parts(model_card(make_model(training_data="")))
    assert front["license"] == "unknown"
    assert "metrics" not in front
    for words in (
        "Average mAP: unknown.",
        "Unknown: the file does not state one.",
        "generator: unknown",
        "<td>features</td>\n<td>unknown</td>",
        "(backbone)</td>\n<td>unknown</td>",
    ):
        assert words in page
    assert "cannot follow one that is still running" not in page
    _, page = parts(model_card(make_model(base="wtalc", iteration=0, pseudo_labels="oracle")))
    assert "none: iteration 0 learns from labels of videos alone" in page
    assert "not weakly" in page
    assert "cannot follow one that is still running" in page


def test_names_of_strangers_are_text_and_no_markup(make_model: Callable[..., Path]) -> None:
    names = (
        "1. <script>alert(1)</script>",
        "- [a](http://evil.example) ![b](c)",
        "*d* _e_ `f` ~~g~~ $h$ | i",
        "http://evil.example",
        "www.evil.example",
        "me@evil.example",
        "&lt; \\ \N{GRINNING FACE} a_b.c",
    )
    parity = Parity("a|b\n# c.h5", 4, 240, 1e-7, 2e-7, 1e-8, 1e-7, 12, 0, 1, reference_map=0.5, map=0.5)
    licence = '"mine": # <b>'
    front, page = parts(
        model_card(make_model(classes=names[:5], licence=licence, parity=parity, training_data=names[6]))
    )
    assert (front["license"], front["license_name"]) == ("other", licence)
    escaped = [name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for name in names]
    assert f"<p>{', '.join(escaped[:5])}</p>" in page
    assert f"<td>{escaped[6]}</td>" in page
    assert "<td>a|b\N{REPLACEMENT CHARACTER}# c.h5: 4 videos" in page
    assert "<p>&quot;mine&quot;: # &lt;b&gt;</p>" in page
    assert not re.search("<(script|a|img|em|b|ol)[ >]", page)
    _, page = parts(model_card(make_model(classes=("- x", "= y", *names[5:], "z"))))
    assert f"<p>- x, = y, {', '.join(escaped[5:])}, z</p>" in page


def test_a_name_that_is_no_utf_8(make_model: Callable[..., Path], tmp_path: Path) -> None:
    made = make_model(licence='\N{GRINNING FACE} of "\u00df"')
    try:
        model = made.rename(tmp_path / os.fsdecode(b"\xc3\x9f\xff.onnx"))
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    text = write_card(model).read_text(encoding="utf-8")
    front, _ = parts(text)
    assert front["license_name"] == '\N{GRINNING FACE} of "\u00df"'
    (call,) = re.findall(r"Detector\((.*)\)", text)
    assert ast.literal_eval(call) == model.name


def test_a_page_that_a_person_wrote_is_not_replaced(export: Export, tmp_path: Path, model_path: Path) -> None:
    make_run(tmp_path / "here", iterations=1)
    (tmp_path / "README.md").write_text("# Ours")
    done = export("here", "--card")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: README.md: is there, and is no card that refineloc-export wrote; ")
    assert (tmp_path / "README.md").read_text() == "# Ours"
    assert not (tmp_path / "model.onnx").exists()  # told before the work
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    with pytest.raises(OutputError, match="is no card"):
        write_card(tmp_path / "model.onnx")
    (tmp_path / "README.md").unlink()
    assert write_card(tmp_path / "model.onnx").read_text() == write_card(tmp_path / "model.onnx").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.onnx", "--card"], "none.onnx: no such file"),
        (
            ["model.onnx", "--card", "--licence", "MIT"],
            "--card of model.onnx, which is a model file, goes without other",
        ),
        (["model.onnx", "--card", "-o", "x.onnx"], "--card of model.onnx, which is a model file, goes without other"),
        (["here", "--card", "-o", "-"], "--card goes with a file"),
        (["--backbone", "torchvision:s3d", "--card"], "--licence and --card are of models"),
    ],
)
def test_mistakes(export: Export, tmp_path: Path, model_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "model.onnx").write_bytes(model_path.read_bytes())
    done = export(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "README.md").exists()
