"""The picture of a time line: drawn for short and long, few and many, and never half-written."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refineloc.evaluation.pictures import timeline
from refineloc.evaluation.pictures.common import pictures
from refineloc.evaluation.pictures.timeline import draw_timeline, score_curves
from refineloc.runtime.annotations import VideoAnnotation
from refineloc.runtime.detections import Detections
from refineloc.runtime.errors import InputError, OutputError
from refineloc.runtime.segments.grid import SnippetGrid
from refineloc.runtime.segments.values import Scores

matplotlib = pytest.importorskip("matplotlib", reason="timelines need refineloc[plot]")
pytest.importorskip("matplotlib.font_manager")


def video(labels=("jump",), segments=((1.0, 2.0),), duration_s=10.0):
    """A video whose segments go round its labels."""
    start, end = (np.array([segment[k] for segment in segments]) for k in (0, 1))
    named = tuple(labels[index % len(labels)] for index in range(len(segments)))
    return VideoAnnotation("clip", tuple(labels), duration_s=duration_s, start=start, end=end, segment_labels=named)


def detected(segments, classes=("jump", "swim")):
    """Detections from (start, end, score, class index)."""
    columns = np.array(segments, dtype=np.float64).reshape(-1, 4).T
    return Detections(columns[0], columns[1], columns[2], columns[3].astype(np.int64), classes)


@pytest.fixture(autouse=True)
def _text_stays_text():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        yield


def rgb(name):
    return np.array(matplotlib.colors.to_rgb(name))


FIRST = rgb("#0072B2")  # the colour of a video's first label


def pixels(path):
    """A PNG, [height, width, 3] in 0..1."""
    return matplotlib.image.imread(path)[:, :, :3]


def columns(image, colour):
    """Which columns hold a pixel of that colour, bool [width]."""
    return (np.abs(image - colour).max(axis=2) < 0.02).any(axis=0)


def test_says_what_it_shows(tmp_path):
    rows = {"iteration 0": detected([(1, 3, 0.5, 0), (6, 8, 0.1, 1)]), "iteration 1": detected([(1, 2, 0.9, 0)])}
    draw_timeline(tmp_path / "a.svg", video(), rows)
    svg = (tmp_path / "a.svg").read_text()
    for words in ("clip", "ground truth (1)", "iteration 0 (2)", "iteration 1 (1)", "time (s)", "jump"):
        assert words in svg
    assert "other classes" in svg  # a lane of their own, which is there only where there are some
    assert "swim" not in svg
    draw_timeline(tmp_path / "a.svg", VideoAnnotation("clip", ("jump",)), {"row": detected([(1, 3, 0.5, 0)])})
    svg = (tmp_path / "a.svg").read_text()
    assert "ground truth" not in svg  # no row for what is not known
    assert "other classes" not in svg


def test_a_stream_without_an_ending_gets_a_png(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        draw_timeline(tmp_path / "pipe", video(), {"row": detected([(1, 3, 0.5, 0)])})
        assert read.result().startswith(b"\x89PNG")


def drawn(*arguments, **options):
    """The figure's main axes, drawn and not written."""
    with pictures():
        return timeline._draw(*arguments, None, options.get("curves", {})).axes[0]


def lanes_of(axes):
    """(name, centre, bars) of each lane, from top to bottom; bars as (left, right, top, bottom)."""
    lanes = []
    names = [text for text in axes.texts if text.get_position()[0] > 1]
    for text, container in zip(names, axes.containers, strict=True):
        boxes = [bar.get_bbox() for bar in container]
        bars = [(box.x0, box.x1, min(box.y0, box.y1), max(box.y0, box.y1)) for box in boxes]
        lanes.append((text.get_text(), text.get_position()[1], bars))
    return lanes


def test_sixty_segments_and_three_hundred_detections_can_be_told_apart():
    """Each class's lane has a name and its bars inside; lanes do not overlap; of 300 detections, the 60 best."""
    rng = np.random.default_rng(5)
    labels = tuple(f"class {index}" for index in range(15))
    truth = video(labels=labels, segments=[(k, k + 0.6) for k in range(60)], duration_s=60.0)
    start = rng.uniform(0, 50, 300)
    score = rng.permutation(300) / 300
    many = detected(
        np.column_stack([start, start + rng.uniform(0.5, 10, 300), score, np.arange(300) % 16]), (*labels, "swim")
    )
    lanes = lanes_of(drawn(truth, {"iteration 0": many, "iteration 1": many}))
    assert [name for name, _, _ in lanes] == [*labels, *labels, "other classes", *labels, "other classes"]
    assert [sum(len(bars) for _, _, bars in part) for part in (lanes[:15], lanes[15:31], lanes[31:])] == [60, 60, 60]
    best = sorted(zip(many.start[score >= 240 / 300], many.end[score >= 240 / 300], strict=True))
    shown = sorted((left, right) for _, _, bars in lanes[15:31] for left, right, _, _ in bars)
    np.testing.assert_allclose(shown, best)
    spans = [(min(bar[2] for bar in bars), max(bar[3] for bar in bars)) for _, _, bars in lanes if bars]
    assert all(above[1] < below[0] + 1e-9 for above, below in itertools.pairwise(spans))
    for _, centre, bars in lanes:
        assert all(abs((top + bottom) / 2 - centre) < 0.2 and bottom - top > 0.04 for _, _, top, bottom in bars)


def test_every_bar_that_is_drawn_can_be_seen():
    """Of bars over each other the surer stands behind: it is taller. So none is hidden, in whatever order they come."""
    nested = detected([(4, 6, 0.2, 0), (0, 10, 0.9, 0), (2, 8, 0.5, 0), (3, 7, 0.4, 0)])
    ((_, _, bars),) = lanes_of(drawn(video(segments=()), {"row": nested}))
    heights = [bottom - top for _, _, top, bottom in bars]  # in the order in which they are painted
    assert heights == sorted(heights, reverse=True)
    assert len({round(height, 6) for height in heights}) == 4


def heights_of(*segments):
    """Heights of bars, as shares of a lane, in the order of lanes."""
    lanes = lanes_of(drawn(video(labels=("jump", "run"), segments=()), {"row": detected(segments, ("jump", "run"))}))
    return [pytest.approx((bottom - top) / (0.92 * timeline._LANE)) for *_, bars in lanes for *_, top, bottom in bars]


def test_a_weak_bar_is_low_though_it_is_alone():
    """In its class, and in its row, where its score says how weak it is unless it is no share of 1."""
    strong, weak = (1, 3, 0.9, 0), (5, 6, 0.1, 1)
    assert heights_of(strong, weak) == [1.0, 0.3]
    assert heights_of(weak) == [0.3 + 0.7 * 0.1]
    assert heights_of((1, 3, 7.5, 0)) == [1.0]


def test_names_of_any_length_leave_room():
    """The line above the picture is the name's own; long ones are cut in the middle."""
    name = "a" * 100 + "b" * 100
    long = VideoAnnotation(name, ("jump",), duration_s=9.0)
    with pictures():
        figure = timeline._draw(long, {name: detected([(1, 3, 0.5, 0)])}, None, {})
    axes = figure.axes[0]
    assert (axes.get_title(), axes.get_title(loc="right")) == ("", "")
    title, row = axes.get_title(loc="left"), axes.get_yticklabels()[0].get_text()
    assert (len(title), title[:2], title[-2:]) == (110, "aa", "bb")
    assert (len(row), row[:2], row[-6:]) == (32, "aa", "bb (1)")
    assert "taller and darker" in figure.get_supxlabel()


def test_without_ground_truth_the_classes_of_the_best_detections_have_lanes():
    classes = tuple(f"class {index}" for index in range(12))
    first = {"v2": detected([(1, 2, 0.5, 3)], classes), "v10": detected([(1, 2, 0.5, 4)], classes)}
    # Twelve classes, the last one surest.
    last = {"v2": detected([(k, k + 1, k / 12, k) for k in range(12)], classes), "v10": detected([], classes)}
    videos = timeline.videos_of_detections([first, last])
    assert list(videos) == ["v2", "v10"]
    assert videos["v2"].labels == tuple(sorted(f"class {index}" for index in range(6, 12)))
    assert videos["v10"].labels == ("class 4",)
    assert not videos.has_times


def test_lanes_are_in_the_order_in_which_people_count():
    labels = ("class1", "class10", "class2", "class21b", "class21a")
    names = [name for name, _, _ in lanes_of(drawn(video(labels=labels), {"row": detected([])}))]
    assert names[:5] == ["class1", "class2", "class10", "class21a", "class21b"]
    assert len({text.get_color().tobytes() for text in drawn(video(labels=labels), {"row": detected([])}).texts}) == 5


@pytest.mark.parametrize(
    ("duration_s", "end", "row", "length_s", "marked"),
    [
        (10.0, 9.0, (1, 8), 10.0, False),
        (10.0, 14.0, (1, 8), 14.0, True),  # THUMOS14's test videos have such annotations
        (10.0, 9.0, (11, 25), 25.0, True),
        (10.0, 10.04, (1, 8), 10.04, False),  # what cannot be seen is not marked
        (None, 9.0, (1, 8), 9.0, False),
    ],
)
def test_what_lies_beyond_the_end_is_drawn_and_the_end_marked(duration_s, end, row, length_s, marked):
    axes = drawn(video(segments=((8.5, end),), duration_s=duration_s), {"row": detected([(*row, 1, 0)])})
    assert axes.get_xlim() == (0, length_s)
    ends = [line for line in axes.lines if list(line.get_xdata()) == [duration_s] * 2]
    assert len(ends) == marked
    assert ("the video's end" in axes.get_xlabel()) == marked


def test_letters_that_no_font_has_are_one_warning(tmp_path):
    # Of planes that no font of this machine is likely to have letters of.
    name = "a\U00014400\U00014401\U0001b171"
    odd = VideoAnnotation(name, (name,), duration_s=9.0, start=np.ones(1), end=2 * np.ones(1), segment_labels=(name,))
    with pytest.warns(UserWarning, match="no installed font") as caught:
        draw_timeline(tmp_path / "a.png", odd, {"row": detected([(1, 3, 0.5, 0)])})
    (warning,) = caught
    assert "no installed font has '\U00014400\U00014401\U0001b171': boxes in the picture" in str(warning.message)
    draw_timeline(tmp_path / "b.png", video(), {"row": detected([])})  # and none where there is nothing to tell


def test_fonts_of_other_scripts_are_used_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(matplotlib.font_manager, "get_font_names", lambda: ["Noto Sans CJK SC", "Some Font"])
    with pictures():
        assert matplotlib.rcParams["font.family"][1:] == ["Noto Sans CJK SC"]


def test_a_surer_detection_is_taller_and_darker(tmp_path):
    draw_timeline(tmp_path / "a.png", video(segments=()), {"row": detected([(1, 4, 0.2, 0), (6, 9, 0.8, 0)])})
    image = pixels(tmp_path / "a.png")
    full, faint = columns(image, FIRST), columns(image, 1 - 0.35 * (1 - FIRST))
    assert full.any()
    assert faint.any()
    assert np.flatnonzero(faint).max() < np.flatnonzero(full).min()


@pytest.mark.parametrize(("count", "duration_s"), [(0, 2.0), (60, 2.0), (60, 7200.0)])
def test_short_and_long_few_and_many(tmp_path, count, duration_s):
    start = np.linspace(0, duration_s * 0.98, count)
    segments = [(s, s + 0.01 * duration_s) for s in start]
    rows = {f"iteration {k}": detected([(s, e, k + s, k % 2) for s, e in segments]) for k in range(4)}
    draw_timeline(tmp_path / "a.png", video(segments=segments, duration_s=duration_s), rows)
    image = pixels(tmp_path / "a.png")
    assert 600 < image.shape[1] < 5000
    assert image.shape[0] < 5000
    assert columns(image, FIRST).any() == (count > 0)


def test_two_seconds_in_two_hours_can_be_seen(tmp_path):
    lone = video(segments=((3600.0, 3602.0),), duration_s=7200.0)
    draw_timeline(tmp_path / "a.png", lone, {"row": detected([])})
    image = pixels(tmp_path / "a.png")[:, :2600]  # without the lanes' names
    dark = ((image[:, :, 2] - image[:, :, 0]) > 0.25).any(axis=0)  # bluer than the band behind the rows
    assert 1 <= dark.sum() <= 8


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [
        (2.0, ("time (s)", "1.50")),
        (299.0, ("time (s)", "250")),
        (300.0, ("time (min:s)", "4:00")),
        (7200.0, ("time (h:min:s)", "1:45:00")),
        (1e6, ("time (h:min:s)", "250:00:00")),
    ],
)
def test_times_are_told_in_the_unit_that_suits_the_length(tmp_path, duration_s, words):
    draw_timeline(tmp_path / "a.svg", video(duration_s=duration_s), {"row": detected([])})
    svg = (tmp_path / "a.svg").read_text()
    assert all(f">{word}<" in svg for word in words)


def test_a_curve_of_two_hours_is_no_block(tmp_path):
    """Values that alternate between 0 and 1, 11,250 snippets: a line in the middle, a pale area over it all."""
    seconds = np.linspace(0, 7200, 11_250)
    draw_timeline(
        tmp_path / "a.png",
        video(segments=(), duration_s=7200.0),
        {"row": detected([])},
        curves={"jump": (seconds, np.arange(11_250) % 2.0)},
    )
    image = pixels(tmp_path / "a.png")
    dark = np.abs(image - FIRST).max(axis=2) < 0.02
    assert 0 < dark.sum(axis=0).max() <= 6
    pale = np.abs(image - (1 - 0.25 * (1 - FIRST))).max(axis=2) < 0.02
    assert pale.sum(axis=0).max() > 40


def test_a_dollar_sign_begins_no_formula(tmp_path):
    name = "$\\foo$ & $1"
    odd = VideoAnnotation(name, (name,), duration_s=9.0, start=np.ones(1), end=2 * np.ones(1), segment_labels=(name,))
    seconds = np.arange(3.0)
    draw_timeline(tmp_path / "a.svg", odd, {name: detected([(1, 3, 0.5, 0)])}, curves={name: (seconds, seconds / 2)})
    assert (tmp_path / "a.svg").read_text().count("$\\foo$") >= 5  # title, row, curve, two lanes


def test_score_curves_stand_at_the_middle_of_each_snippet():
    scores = Scores(
        np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], np.float32),
        np.array([0.1, 0.9, 0.5], np.float32),
        np.full(3, 1 / 3, np.float32),
        np.array([[0.5, 0.5]], np.float32),
    )
    # Snippets of a second, the last one cut by the end: [0, 1), [1, 2), [2, 2.5).
    curves = score_curves(scores, SnippetGrid(16.0, 16, 2.5), video(labels=("jump", "fly")), ("swim", "jump"))
    assert list(curves) == ["foreground", "jump"]
    for seconds, _ in curves.values():
        assert seconds.tolist() == [0.5, 1.5, 2.25]
    assert curves["jump"][1].tolist() == pytest.approx([0.8, 0.4, 0.5])
    assert curves["foreground"][1].tolist() == pytest.approx([0.1, 0.9, 0.5])


def test_bad_requests_leave_nothing(tmp_path):
    with pytest.raises(InputError, match=r"\.png"):
        draw_timeline(tmp_path / "a.bmp", video(), {"row": detected([])})
    with pytest.raises(InputError, match="at least one row"):
        draw_timeline(tmp_path / "a.png", video(), {})
    with pytest.raises(OutputError, match="none"):
        draw_timeline(tmp_path / "none" / "a.png", video(), {"row": detected([])})
    assert list(tmp_path.iterdir()) == []
