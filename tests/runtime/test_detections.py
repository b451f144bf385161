"""Detections: records, and each file format there and back."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refineloc.runtime.detections import (
    Detection,
    Detections,
    _build,
    _Columns,
    _columns_of_plain_json,
    _rows_of_json,
    parse_detections,
    read_detections,
    write_detections,
)
from refineloc.runtime.errors import DetectionError, InputError, MissingExtraError, OutputError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Segments

FOUND = {
    "v1": Detections(
        start=np.array([0.1, 1 / 3]),
        end=np.array([2.0, 4.0]),
        score=np.array([1.5, 0.25]),
        label_index=np.array([1, 0]),
        classes=("dive", "jump"),
    ),
    "v2": Detections(np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64), ("dive", "jump")),
}


def test_those_of_a_batch_are_those_of_each_video() -> None:
    columns = ([0, 0, 2], [1, 0, 1], [0.0, 4.0, 2.0], [3.0, 9.0, 2.5], [0.25, 0.5, 1.0])
    segments = Segments(*map(np.array, columns))
    grids = [SnippetGrid(16.0, 8), SnippetGrid(16.0, 8), SnippetGrid(8.0, 8, 3.25)]
    detections = Detections.from_batch(grids, segments, ("dive", "jump"), "cpu")
    assert [list(each) for each in detections] == [
        [Detection(2.0, 5.0, "dive", 0.5), Detection(0.0, 2.0, "jump", 0.25)],
        [],
        [Detection(2.0, 3.25, "jump", 1.0)],
    ]
    assert {each.provider for each in detections} == {"cpu"}
    for grid, video, each in zip(grids, segments.by_video(3), detections, strict=True):
        assert list(Detections.from_segments(grid, video, ("dive", "jump"))) == list(each)
    assert Detections.from_batch([], segments.take(slice(0)), ("dive", "jump")) == []


def test_records_and_labels() -> None:
    assert list(FOUND["v1"]) == [Detection(0.1, 2.0, "jump", 1.5), Detection(1 / 3, 4.0, "dive", 0.25)]
    assert FOUND["v1"].label.tolist() == ["jump", "dive"]
    assert len(FOUND["v2"]) == 0


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.csv"])
def test_round_trip_is_exact(tmp_path: Path, name: str) -> None:
    write_detections(tmp_path / name, FOUND)
    again = read_detections(tmp_path / name)
    assert list(again["v1"]) == list(FOUND["v1"])
    write_detections(tmp_path / f"again-{name}", again)
    assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()
    if name != "d.csv":  # a CSV has no row for a video without detections
        assert len(again["v2"]) == 0


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.csv"])
def test_scores_are_written_with_the_digits_of_float32(tmp_path: Path, name: str, rng: np.random.Generator) -> None:
    """As few as read back as the same float32: 7 to 9. What float32 cannot hold is kept."""
    score = np.concatenate([rng.random(500), rng.random(500) * 1e-6, [1 / 3, 1e-50, 1e300, -1.5, 0.1, 16_777_217]])
    count = len(score)
    many = Detections(np.zeros(count), np.full(count, 1 / 3), score, np.zeros(count, np.int64), ("dive",))
    write_detections(tmp_path / name, {"v": many})
    again = read_detections(tmp_path / name)["v"]
    with np.errstate(over="ignore"):
        assert np.array_equal(again.score.astype(np.float32), score.astype(np.float32))
    assert again.score[-4] == 1e300
    np.testing.assert_array_equal(again.end, many.end)
    texts = [
        repr(value).replace(".", "").replace("-", "").split("e")[0].strip("0") for value in again.score[:1000].tolist()
    ]
    assert max(map(len, texts)) <= 9
    assert np.mean([len(text) for text in texts]) < 8.5
    assert again.score[1000] == 0.33333334


def test_one_detection_some_and_how_they_print() -> None:
    video = FOUND["v1"]
    assert video[0] == Detection(0.1, 2.0, "jump", 1.5)
    assert video[np.int64(-1)] == video[1] == list(video)[1]
    for key in (slice(1, None), [1], np.array([1]), np.array([False, True]), video.score < 1):
        some = video[key]
        assert isinstance(some, Detections)
        assert list(some) == [video[1]]
        assert some.classes == video.classes
    with pytest.raises(IndexError):
        _ = video[2]
    with pytest.raises(TypeError):
        _ = video["jump"]  # type: ignore[call-overload]
    assert repr(video) == "<2 detections: jump 0.1 to 2.0 s (1.5), dive 0.3 to 4.0 s (0.25)>"
    assert repr(FOUND["v2"]) == "<0 detections>"
    assert repr(video[np.array([0, 0, 0, 1])]).endswith("jump 0.1 to 2.0 s (1.5), ...>")


def test_a_table_for_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    table = FOUND["v1"].to_pandas()
    assert list(table.columns) == ["start", "end", "label", "score"]
    assert table.label.tolist() == ["jump", "dive"]
    assert table.score.tolist() == [1.5, 0.25]
    assert len(FOUND["v2"].to_pandas()) == 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="to_pandas needs pandas: pip install pandas"):
        FOUND["v1"].to_pandas()


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.csv"])
def test_round_trip_of_odd_names(tmp_path: Path, name: str) -> None:
    # Ends of lines of every kind, which str.splitlines() takes for ends of rows, and what a CSV quotes.
    odd = 'a\u2028b\x0cc\x85d\ne\rf\r\ng,"h"'
    found = Detections(np.zeros(1), np.ones(1), np.ones(1), np.zeros(1, np.int64), (f"{odd}!",))
    write_detections(tmp_path / name, {odd: found, "next": found})
    again = read_detections(tmp_path / name)
    assert {video: list(own) for video, own in again.items()} == {odd: list(found), "next": list(found)}


def test_json_lines_of_others_may_hold_line_separators_as_they_are(tmp_path: Path) -> None:
    line = '{"video": "a\u2028b", "detections": [{"label": "x\x85", "score": 1, "segment": [0, 1]}]}\r\n'
    (tmp_path / "d.jsonl").write_text(line + line.replace("a\u2028", "b\u2028"), encoding="utf-8", newline="")
    assert list(read_detections(tmp_path / "d.jsonl")) == ["a\u2028b", "b\u2028b"]


def test_spaces_around_names_in_a_csv_do_not_count_and_in_a_json_do(tmp_path: Path) -> None:
    # As for annotations (test_annotations.py), so that the two match.
    (tmp_path / "d.csv").write_text("video-name, t-start, t-end, label, score\n v , 0, 1,\tx , 0.5\n\nv,0,1,x,1\n")
    (found,) = read_detections(tmp_path / "d.csv").items()
    assert (found[0], found[1].label.tolist()) == ("v", ["x", "x"])
    (tmp_path / "d.json").write_text(json.dumps({" v ": [{"label": " x", "score": 1, "segment": [0, 1]}]}))
    assert read_detections(tmp_path / "d.json")[" v "].classes == (" x",)


def test_json_is_activitynets(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.json", FOUND, {"provider": "cpu"})
    document = json.loads((tmp_path / "d.json").read_text())
    assert set(document) == {"version", "results", "external_data"}
    assert document["results"]["v1"][0] == {"label": "jump", "score": 1.5, "segment": [0.1, 2.0]}
    assert document["external_data"] == {"provider": "cpu"}


def test_results_may_stand_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps({"v": [{"label": "x", "score": "0.5", "segment": ["1", 2]}]}))
    assert list(read_detections(tmp_path / "d.json")["v"]) == [Detection(1.0, 2.0, "x", 0.5)]


def test_failed_writes_leave_nothing_and_keep_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    write_detections(path, FOUND)
    before = path.read_bytes()
    broken = {"v": Detections(np.array([np.nan]), np.ones(1), np.ones(1), np.zeros(1, np.int64), ("x",))}
    with pytest.raises(ValueError, match="JSON"):
        write_detections(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="cannot be written"):
        write_detections(tmp_path / "absent" / "d.json", FOUND)
    (tmp_path / "f.json").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_detections(tmp_path / "f.json", FOUND)
    with pytest.raises(InputError, match=r"\.json, \.csv, \.jsonl"):
        write_detections(tmp_path / "d.txt", FOUND)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.json", "{", "not valid JSON"),
        ("d.json", "[]", "'results'"),
        ("d.json", '{"results": {"v": 3}}', "video 'v': expected a list"),
        ("d.json", '{"results": {"v": [{"label": "x", "score": 1}]}}', "video 'v'.*segment"),
        ("d.json", '{"results": {"v": [{"label": "x", "score": NaN, "segment": [0, 1]}]}}', "finite"),
        (
            "d.json",
            '{"results": {"v": [{"label": 7, "score": 1, "segment": [0, 1]}]}}',
            "'v': detection 1: .* the number 7",
        ),
        (
            "d.json",
            '{"v": [{"label": "x", "score": 1, "segment": [0, 1]}, {"label": null, "score": 1, "segment": [0, 1]}]}',
            "'v': detection 2: its label: expected a text, got null",
        ),
        ("d.json", '{"v": [], "v": []}', "'v' is there twice"),
        ("d.json", '{"v": [], "w": [{"label": "x", "label": "y", "score": 1, "segment": [0, 1]}]}', "'label' is there"),
        ("d.json", '{"results": {}, "results": {"v": [{"label": "[", "score": 1, "segment": [0, 1]}]}}', "'results'"),
        ("d.json", '{"v": [{"label": "x", "score": 1, "segment": [0, 1e308]}]}', r"'v': 1e\+308 s is no time"),
        ("d.csv", "video-name,t-start,t-end,label,score\nv,-1e10,1,l,1\n", r"line 2: -1e\+10 s is no time"),
        (
            "d.jsonl",
            '{"video": "v", "detections": [{"label": "x", "score": 1, "segment": [2e9, 3e9]}]}',
            r"3e\+09 s is",
        ),
        (
            "d.jsonl",
            '{"video": "v", "detections": [], "detections": []}',
            "line 1: the key 'detections' is there twice",
        ),
        ("d.jsonl", '{"video": "v", "detections": [], "video": "w"}', "line 1: the key 'video' is there twice"),
        ("d.jsonl", '{"video": 3}\n', "line 1: 'video': expected a text, got the number 3"),
        ("d.csv", "a,b\n1,2\n", "expected a header with the columns video-name, t-start, t-end, label, score, got a,b"),
        ("d.csv", "video-name,t-start,t-end,label,score\nv,0,x,l,1\n", "line 2"),
        ("d.csv", "video-name,t-start,t-end,label,score\nv,0,1,l\n", "line 2: expected 5 columns, got 4"),
        ("d.csv", "video-name,t-start,t-end,label,score\nv,0,1," + "x" * 200_000 + ",1\n", "line 2: not a CSV"),
        (
            "d.json",
            '{"v": [{"label": "x", "score": 1%s, "segment": [0, 1]}]}' % ("0" * 400),
            "video 'v'.*OverflowError",
        ),
        ("d.json", '{"v\\ud800": []}', "video .* holds half a character"),
        ("d.jsonl", '{"video": "\\udc00", "detections": []}', "video .* holds half a character"),
        ("d.json", '{"v": [{"label": "x\\ud800", "score": 1, "segment": [0, 1]}]}', "label .* holds half a character"),
    ],
)
def test_one_line_for_each_wrong_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DetectionError, match=message) as caught:
        read_detections(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_names_that_look_like_keys_are_read(tmp_path: Path, name: str) -> None:
    odd = Detections(np.zeros(2), np.ones(2), np.ones(2), np.arange(2), ("[", "label"))
    write_detections(tmp_path / name, {"score": odd, '"video"': odd})
    assert list(read_detections(tmp_path / name)) == ["score", '"video"']


PLAIN = (
    '{"version": "V", "results": {"a": [{"score": 0.5, "segment": [1, 2.5], "label": "x"}], "b": []}, '
    '"external_data": {}}'
)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_video_at_a_time_is_read_and_refused_as_the_whole_document(reverse: bool) -> None:
    """Whatever is wrong: signs left out, put in and changed, and values of other kinds."""
    rng = random.Random(reverse)
    texts = [PLAIN]
    values = ('"0.5"', "NaN", "1e400", "[1]", "3", '"\\ud800"', '""', "null", "true", '"12"', "{}", "1" + "0" * 400)
    parts = ("0.5", "[1, 2.5]", '"x"', "[]", '"V"', '"a"', '"b"', '"external_data": {}')
    texts += [PLAIN.replace(part, value) for part in parts for value in values]
    texts += [
        PLAIN.replace('"external_data": {}', other) for other in ('"results": {}', '"results": 0', '"version": 1')
    ]
    texts += [PLAIN.replace('"b"', '"a"'), PLAIN.replace('"label"', '"score"'), PLAIN + "x", PLAIN.replace("[", "\v[")]
    for _ in range(400):
        signs = list(PLAIN)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(signs))
            signs[place : place + rng.randint(0, 1)] = rng.choice(["", *'{}[],:"0ae-\\\n'])
        texts.append("".join(signs))

    def read(build: Callable[[], Any]) -> object:
        try:
            return {name: list(video) for name, video in build().items()}
        except DetectionError as error:
            return str(error)

    source, alike = Path("d.json"), 0
    for text in texts:
        whole = read(lambda text=text: _build(source, _Columns.of(_rows_of_json(source, text))))  # type: ignore[misc]
        assert repr(read(lambda text=text: parse_detections(source, text))) == repr(whole), text  # type: ignore[misc]
        alike += _columns_of_plain_json(text) is not None
    assert 20 < alike < len(texts) / 2


def test_what_is_written_is_read_one_video_at_a_time(tmp_path: Path) -> None:
    video = Detections(np.zeros(2), np.ones(2), np.ones(2), np.arange(2), ("jump", "läuft"))
    write_detections(tmp_path / "d.json", {"v": video, "w ä": video})
    assert _columns_of_plain_json((tmp_path / "d.json").read_text()) is None  # "\u00e4" is one of those names
    write_detections(tmp_path / "d.json", {"v": video, "w": video})
    assert _columns_of_plain_json((tmp_path / "d.json").read_text()) is not None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DetectionError, match="no such file"):
        read_detections(tmp_path / "absent.json")


def test_the_authors_predictions(shared_data: Path) -> None:
    found = read_detections(shared_data / "refineloc-release" / "valid_predictions_iteration_0000.json")
    assert sum(map(len, found.values())) == 35_308


def test_parquet_reads_back_and_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("refineloc.runtime.parquet._ROWS", 3)  # several groups
    number = np.arange(5, dtype=np.float64)
    video = Detections(number, number + 1, number / 7, np.array([0, 1, 0, 1, 1]), ("run", "jump"))
    write_detections(tmp_path / "d.parquet", (pair for pair in [("v", video), ("w", video[:2])]))
    write_detections(tmp_path / "d.json", {"v": video, "w": video[:2]})
    read, same = (read_detections(tmp_path / name) for name in ("d.parquet", "d.json"))
    assert {name: list(video) for name, video in read.items()} == {name: list(video) for name, video in same.items()}
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DetectionError, match=r"bad.parquet: cannot be read as Parquet"):
        read_detections(tmp_path / "bad.parquet")
