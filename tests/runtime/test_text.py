"""Text as people's programs leave it: read as it is meant, or one line that names the cause."""

import codecs
import warnings
from pathlib import Path

import pytest

from refineloc.runtime import read_annotations, read_detections
from refineloc.runtime.annotations import read_regions
from refineloc.runtime.errors import AnnotationError, InputError, InputWarning
from refineloc.runtime.text import plain_label, read_names, read_text, spelling, trimmed

LABELS = "video-name,label,fps\nclip é,jump,25.5\nw,dive,30\n"
BLANKS = " \t\u00a0\u2009\u202f\u3000\u200b\ufeff\u2060"


def text_of(path: Path) -> str:
    return read_text(path, AnnotationError, "give labels")


def labels_of(path: Path) -> dict[str, tuple[tuple[str, ...], float | None]]:
    return {name: (video.labels, video.fps) for name, video in read_annotations(path).items()}


@pytest.mark.parametrize(
    "content",
    [
        LABELS.encode(),
        LABELS.encode("utf-8-sig"),
        LABELS.encode("utf-16"),
        codecs.BOM_UTF16_BE + LABELS.encode("utf-16-be"),
        LABELS.encode("utf-16-le"),  # without a mark
        LABELS.encode("utf-16-be"),
        LABELS.encode("utf-32"),
    ],
)
def test_encodings_that_can_be_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert labels_of(tmp_path / "t.csv") == {"clip é": (("jump",), 25.5), "w": (("dive",), 30.0)}


def test_windows_1252_is_read_with_a_warning_that_shows_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("video-name,label\r\nv,x\r\nw,Saut à la perche\xa0\r\n".encode("cp1252"))
    with pytest.warns(InputWarning, match=r"t\.csv: line 3: not UTF-8; read as Windows-1252: 'w,Saut à la perche'"):
        assert read_annotations(tmp_path / "t.csv").classes == ("Saut à la perche", "x")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("прыжок", "cp1251"),
        ("跳水", "gbk"),
        ("飛込", "shift-jis"),
        ("Saut à la perche", "mac-roman"),
        ("Saut à la perche", "cp850"),
    ],
)
def test_other_encodings_are_named_as_the_cause(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes(f"video-name,label\nv,{text}\n".encode(encoding))
    with pytest.raises(AnnotationError, match=r"line 2: cannot be read as text: not UTF-8 .*save it again, as UTF-8"):
        read_annotations(tmp_path / "t.csv")


def test_text_that_does_not_go_on_as_it_begins(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(codecs.BOM_UTF16_LE + b"a\0b")
    with pytest.raises(AnnotationError, match="it begins as UTF-16 and goes on otherwise; save it as UTF-8"):
        text_of(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        "video-name;label;fps\nv;jump, high;25,5\n",
        "sep=;\r\nvideo-name;label;fps\r\nv;jump, high;25,5\r\n",
        'sep=,\nvideo-name,label,fps\nv,"jump, high",25.5\n',
        "video-name\tlabel\tfps\nv\tjump, high\t25.5\n",
        "video-name|label|fps\nv|jump, high|25.5\n",
        '\n,,\nVideo Name, LABEL,FPS,,\nv,"jump, high",25.5,,\n,,,,\n \t,,,,\u00a0\n\n',
        'video_name,label,fps\nv,"jump, high",25.5,\n',
        f'video-name,label{BLANKS},fps\n{BLANKS}v{BLANKS},"{BLANKS}jump,\u00a0high\u200b{BLANKS}",{BLANKS}25.5{BLANKS}\n',
    ],
)
def test_a_table_however_it_was_saved(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert labels_of(tmp_path / "t.csv") == {"v": (("jump, high",), 25.5)}


def test_detections_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("video-name;t-start;t-end;label;score\nv;0,5;1,25;1,5;0,75\n")
    assert [tuple(found) for found in read_detections(tmp_path / "d.csv")["v"]] == [(0.5, 1.25, "1,5", 0.75)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video-name label\nv x\n", "the columns video-name, label, got video-name label"),
        ("sep=;\nvideo-name,label\nv,x\n", "expected a header with the columns"),
        (
            "video-name,label\nv;x\n",
            "line 2: expected 2 columns, got 1; the header is separated by ',', this line by ';'",
        ),
        ("sep=;\nvideo-name;label\n\nv;x;y\n", "line 4: expected 2 columns, got 3"),
        ("video-name,label,label\nv,x,y\n", "the column 'label' is there twice; give each value a row of its own"),
        ("video-name;label;fps\nv;x;1.234,5\n", "line 2: fps: expected a number, got '1.234,5'"),
    ],
)
def test_one_line_for_each_wrong_table(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(tmp_path / "t.csv")
    assert message in str(caught.value)


def test_names_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(f"\ufeffrun\r\n\r\n{BLANKS}\r\n{BLANKS}High\u00a0Jump{BLANKS}\r\n", encoding="utf-8")
    assert read_names(path, InputError, "give classes") == ("run", "High Jump")
    path.write_text("run\njump\nrun\n")
    with pytest.raises(InputError, match=r"classes\.txt: line 3: 'run' is in line 1 too; each name once"):
        read_names(path, InputError, "give classes")
    path.write_text("\ufeff \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"classes\.txt: is empty; give classes"):
        read_names(path, InputError, "give classes")


def test_regions_however_they_were_saved(tmp_path: Path) -> None:
    for content in ("\ufeffv  1.0\u00a02.0\u200b\r\n\r\n".encode(), "v\t1 2\r".encode("utf-16")):
        (tmp_path / "r.txt").write_bytes(content)
        with warnings.catch_warnings(action="error"):
            assert read_regions(tmp_path / "r.txt") == {"v": [(1.0, 2.0)]}


def test_blanks_that_nobody_sees() -> None:
    assert trimmed(f"{BLANKS}a\u00a0b{BLANKS}") == "a\u00a0b"  # inside a name they are its own
    assert plain_label(f"{BLANKS}a\u00a0b\u200bc{BLANKS}") == "a bc"
    assert plain_label("e\u0301\u200d") == "e\u0301\u200d"  # letters and joiners are left alone
    for text in ("High Jump", "high\u00a0jump", "HIGHJUMP", " High  Jump\u200b"):
        assert spelling(text) == "highjump"
    assert spelling("Caf\u00e9") == spelling("cafe\u0301")
    assert spelling("Straße") != spelling("Strase")
