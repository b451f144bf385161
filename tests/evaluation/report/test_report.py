"""The report: its numbers, and the page in a real browser: it renders, sorts, filters, shows hostile names as text."""

import itertools
import json
import re
import sys
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import annotations_of
from waiting import LAST_RESORT_S

from refineloc.evaluation import Matching, compare, diagnose, evaluate, match_detections, video_scores
from refineloc.evaluation.pictures.timeline import videos_of_detections
from refineloc.evaluation.report import detections_data, report_data, write_report
from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import InputError

TIOUS = [0.3, 0.5, 0.7]
SCRIPT = "<script>window.hit = 1</script>"
IMAGE = '"><img src=x onerror="window.hit = 1">'
END = "</script><script>window.hit = 1</script>{{DATA}}"


def sample(tious: list[float] = TIOUS) -> dict[str, Matching]:
    """30 videos, some hostile by name; two sets of detections, the second closer to the truth."""
    rng = np.random.default_rng(3)
    classes = ("jump", "run", SCRIPT)
    names = [f"clip {k:02d}" for k in range(27)] + [IMAGE, END, "a b#c%?"]
    videos = {}
    for index, name in enumerate(names):
        start = np.sort(rng.uniform(0, 80, index % 4))
        videos[name] = VideoAnnotation(
            name,
            (classes[index % 3],),
            duration_s=None if index == 5 else 100.0,
            start=start,
            end=start + rng.uniform(2, 15, len(start)),
            segment_labels=(classes[index % 3],) * len(start),
        )
    truth, matchings = Annotations(videos, "<b>truth</b>.csv"), {}
    for set_name, noise in (("iteration 0", 5.0), (f"iteration 1 {SCRIPT}", 0.8)):
        detections = {}
        for index, name in enumerate(names):
            start = np.concatenate([videos[name].start + rng.normal(0, noise, len(videos[name].start)), [1.0]])
            label = np.append(np.full(len(start) - 1, index % 3), 1)
            detections[name] = Detections(start, start + 8, rng.uniform(0, 2, len(start)), label, classes)
        matchings[set_name] = match_detections(detections, truth, tious)
    return matchings


def written(path: Path, matchings: Mapping[str, Matching], figures: bool = False, **options: Any) -> Path:
    """A page; the figures of the diagnosis take time to draw."""
    diagnoses = {name: diagnose(matching) for name, matching in matchings.items() if figures}
    write_report(path, report_data(matchings, **{"title": "t", "resamples": 0, **options}), diagnoses)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "films").mkdir()
    for name in ("a b#c%?.webm", "clip 04.txt"):
        (folder / "films" / name).write_bytes(b"")
    # 100 s that play: sound, which a browser takes under any media file's name.
    with wave.open(str(folder / "films" / "clip 03.mp4"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(4000)
        sound.writeframes(bytes([128]) * 4000 * 100)
    films: dict[str, Any] = {"films": folder / "films", "relative_to": folder}
    return written(folder / "report.html", sample(), figures=True, title=f"Title {SCRIPT}", resamples=50, **films)


def test_numbers_are_those_of_the_evaluation() -> None:
    matchings = sample()
    data = report_data(matchings, title="t", resamples=50)
    assert [entry["name"] for entry in data["sets"]] == list(matchings)
    for index, (entry, matching) in enumerate(zip(data["sets"], matchings.values(), strict=True)):
        evaluation = evaluate(matching)
        assert entry["mAP"] == evaluation.mAP.tolist()
        assert entry["average_mAP"] == evaluation.average_mAP
        low, high = entry["interval"]["average_mAP"]
        assert low < evaluation.average_mAP < high
        for column, row in enumerate(data["classes"]):
            assert row["ap"][index] == evaluation.ap[:, column].tolist()
            low, high = row["intervals"][index]
            assert 0 <= low <= np.mean(row["ap"][index]) <= high <= 1
    assert data["sets"][0]["average_mAP"] < data["sets"][1]["average_mAP"]
    json.dumps(data, allow_nan=False)


def test_a_videos_score_is_its_own_evaluation() -> None:
    matching = sample()[f"iteration 1 {SCRIPT}"]
    scores = video_scores(matching)
    assert len({round(float(score), 6) for score in scores if not np.isnan(score)}) > 5
    for index, (name, video) in enumerate(matching.annotations.items()):
        if not len(video.start):
            assert np.isnan(scores[index])
            continue
        alone = evaluate(match_detections({name: matching.detections[name]}, Annotations({name: video}), TIOUS))
        assert scores[index] == pytest.approx(alone.average_mAP)


def test_without_matplotlib_the_page_has_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = written(tmp_path / "report.html", sample(), figures=True).read_text(encoding="utf-8")
    assert page.count('<p class="quiet">pictures need Matplotlib: pip install &#x27;refineloc[plot]&#x27;</p>') == 2
    assert "<svg" not in page.split('id="data"')[0]


def test_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one set of detections"):
        report_data({}, title="t")
    with pytest.raises(InputError, match="no such folder of films"):
        report_data(sample(), title="t", films=tmp_path / "absent")


def test_video_files_in_folders_below(tmp_path: Path) -> None:
    """A name with "/" finds its file there; what is outside, or behind a link, is not looked at."""
    films = tmp_path / "films"
    (films / "a" / "b").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for place in ("films/one.mp4", "films/a/two.MP4", "films/a/b/v 1.2.webm", "films/a/note.txt", "secret/x.mp4"):
        (tmp_path / place).write_bytes(b"")
    (films / "linked").symlink_to(tmp_path / "secret")
    names = ["one", "a/two", "a/b/v 1.2", "two", "../secret/x", "linked/x", "a/../one", "/etc/x"]
    matchings = {"r": match_detections({}, annotations_of([(name, 0, 1, "jump") for name in names]), [0.5])}
    data = report_data(matchings, title="t", resamples=0, films=films, relative_to=tmp_path)
    assert {row["name"]: row["file"] for row in data["videos"] if "file" in row} == {
        "one": "./films/one.mp4",
        "a/two": "./films/a/two.MP4",
        "a/b/v 1.2": "./films/a/b/v%201.2.webm",
    }


def test_one_file_that_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert "media-src 'self' file:\"" in text  # the films beside it
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, which are not loaded
    assert not re.search(r"<(link|img|iframe|object|embed)\b", text.split('id="data">')[0])
    assert "@import" not in text
    # Figures of one page share no identifiers, and have no style that holds for the whole page.
    figures = text.split('id="data"')[0].split("<svg")[1:]
    assert len(figures) == 6
    identifiers = [name for figure in figures for name in set(re.findall(r'\bid="([^"]+)"', figure))]
    assert len(identifiers) == len(set(identifiers))
    assert text.count("<style") == 1


def test_data_cannot_end_its_element(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inside = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "<" not in inside
    data = json.loads(inside)
    assert END in [row["name"] for row in data["videos"]]  # what is inserted is no place to insert at
    assert "<title>Title &lt;script&gt;" in text


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page, freshly loaded at a desktop's width in light colours."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return shown(browser, page)


def shown(browser: Any, page: Path) -> Any:
    """The browser with a page; its script has run when the page is loaded."""
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "true", browser.get_log("browser")
    return browser


def texts(browser: Any, selector: str) -> list[str]:
    contents: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector
    )
    return contents


def column(browser: Any, table: str, title: str) -> list[str]:
    index = texts(browser, f"#{table} th").index(title)
    return texts(browser, f"#{table} tbody tr:not(.detail) td:nth-child({index + 1})")


def open_time_lines(browser: Any, *rows: int) -> None:
    for row in rows:
        browser.execute_script("document.querySelectorAll('#video-table td button')[arguments[0]].click()", row)


def filter_videos(browser: Any, text: str) -> None:
    field = browser.find_element("css selector", "#video-filter")
    field.clear()
    field.send_keys(text)


def press(browser: Any, table: str, title: str) -> None:
    browser.execute_script(
        "[...document.querySelectorAll(`#${arguments[0]} th button`)]"
        ".find((button) => button.textContent === arguments[1]).click()",
        table,
        title,
    )


def test_it_renders_without_a_complaint(opened: Any) -> None:
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    matchings = sample()
    averages = [text.split()[0] for text in column(opened, "score-table", "average")]
    assert averages == [f"{100 * evaluate(matching).average_mAP:.2f}" for matching in matchings.values()]
    assert len(texts(opened, "#class-table tbody tr")) == 3
    assert len(texts(opened, "#video-table tbody tr")) == 30
    assert len(texts(opened, "#score-chart polyline")) == 2
    assert len(texts(opened, "#ends-list .card")) == 8
    assert re.fullmatch(r"best \(iteration 0: [\d.]+, iteration 1 .*: [\d.]+\)", texts(opened, ".card h3 .quiet")[0])


def test_figures_of_the_diagnosis_are_shown_by_name(opened: Any) -> None:
    matchings = sample()
    for section, figures in (("errors", 1), ("found", 2)):
        assert texts(opened, f"#{section} summary") == list(matchings)
        assert len(texts(opened, f"#{section} details[open] svg")) == 2 * figures
    share = diagnose(list(matchings.values())[1]).false_positives.share[0]
    drawn = texts(opened, "#errors details:nth-of-type(2) svg text")
    assert {f"{100 * value:.0f}" for value in share if value >= 0.06} <= set(drawn)
    # Texts are in the page's font: none is outside its figure.
    outside = (
        "return [...document.querySelectorAll('.figure svg')].flatMap(figure => {"
        " const box = figure.getBoundingClientRect();"
        " return [...figure.querySelectorAll('text')].filter(text => text.getBoundingClientRect().left < box.left - 1"
        " || text.getBoundingClientRect().right > box.right + 1).map(text => text.textContent) })"
    )
    assert opened.execute_script(outside) == []


def test_hostile_names_are_text(opened: Any) -> None:
    assert opened.execute_script("return window.hit") is None
    assert opened.execute_script("return document.querySelectorAll('script').length") == 2
    assert opened.execute_script("return document.querySelectorAll('body img').length") == 0
    assert f"Title {SCRIPT}" in texts(opened, "h1")
    assert SCRIPT in column(opened, "class-table", "class")
    assert {IMAGE, END} <= set(column(opened, "video-table", "video"))
    open_time_lines(opened, *range(30))
    assert len(texts(opened, "#video-table tr.detail svg")) == 30
    assert opened.execute_script("return window.hit") is None
    # And where a script did get in, the page's policy would not run it.
    opened.execute_script(
        "const s = document.createElement('script'); s.text = 'window.hit = 2'; document.body.append(s)"
    )
    assert opened.execute_script("return window.hit") is None


def test_it_sorts(opened: Any) -> None:
    def values() -> list[float | None]:
        return [None if text == "–" else float(text) for text in column(opened, "video-table", "iteration 0")]

    assert column(opened, "video-table", "video") == sorted(column(opened, "video-table", "video"), key=str.lower)
    known = sorted(value for value in values() if value is not None)
    assert len(set(known)) > 3
    unknown = [None] * 8  # videos without annotations, last in both directions
    press(opened, "video-table", "iteration 0")
    assert values() == [*reversed(known), *unknown]
    press(opened, "video-table", "iteration 0")
    assert values() == [*known, *unknown]
    sorts = "return [...document.querySelectorAll('#video-table th')].map(head => head.getAttribute('aria-sort'))"
    assert opened.execute_script(sorts).count("ascending") == 1
    press(opened, "class-table", "instances")
    instances = [int(text) for text in column(opened, "class-table", "instances")]
    assert instances == sorted(instances, reverse=True)


def test_it_filters(opened: Any) -> None:
    for text, videos in (
        ("CLIP 1", [f"clip {k}" for k in range(10, 20)]),
        ("<img", [IMAGE]),
        ("nothing like it", []),
    ):
        filter_videos(opened, text)
        assert column(opened, "video-table", "video") == videos
        assert texts(opened, "#videos .count") == [f"{len(videos)} of 30"]
    filter_videos(opened, "jump")  # by class too
    assert set(column(opened, "video-table", "classes")) == {"jump"}


def test_a_video_opens_its_time_line_with_links_that_seek(opened: Any, page: Path) -> None:
    filter_videos(opened, "clip 03")
    open_time_lines(opened, 0)
    matchings = list(sample().values())
    video = matchings[0].annotations["clip 03"]
    links = opened.execute_script(
        "return [...document.querySelectorAll('#video-table tr.detail svg a')].map((link) => link.getAttribute('href'))"
    )
    assert len(links) == len(video.start) + sum(len(matching.detections["clip 03"]) for matching in matchings)
    assert links[0] == f"./films/clip%2003.mp4#t={round(video.start[0], 2)},{round(video.end[0], 2)}"
    # A name with characters that mean something in an address finds its file all the same.
    filter_videos(opened, "a b#")
    open_time_lines(opened, 0)
    href = opened.execute_script("return document.querySelector('#video-table tr.detail a').getAttribute('href')")
    address = opened.execute_script("return new URL(arguments[0], location).href.split('#')[0]", href)
    assert address == (page.parent / "films" / "a b#c%?.webm").as_uri()


def segment_of(link: Any) -> tuple[float, float]:
    start, end = (float(value) for value in link.get_dom_attribute("href").split("#t=")[1].split(","))
    return start, end


def second_played(browser: Any, start: float) -> float:
    """Where the film of the open time line stands, once it has reached a second."""
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    now = "return document.querySelector('#video-table video').currentTime"
    second: float = wait(browser, LAST_RESORT_S, 0.05).until(
        lambda _: (value := browser.execute_script(now)) >= start and value
    )
    return second


def test_a_segment_plays_in_the_page_from_its_start(opened: Any) -> None:
    filter_videos(opened, "clip 03")
    open_time_lines(opened, 0)
    windows = opened.window_handles
    link = opened.find_elements("css selector", "#video-table .links a")[1]
    start, end = segment_of(link)
    link.click()
    assert 5 < start <= second_played(opened, start) <= end + 0.5  # it began at the segment, not at 0
    bars = opened.find_elements("css selector", "#video-table tr.detail svg a")
    bar = max(bars, key=lambda each: segment_of(each)[0])
    later, _ = segment_of(bar)
    assert later > start
    opened.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))", bar)
    assert later <= second_played(opened, later)
    assert opened.window_handles == windows


def test_a_segment_that_is_over_pauses(opened: Any) -> None:
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    filter_videos(opened, "clip 03")
    open_time_lines(opened, 0)
    link = opened.find_elements("css selector", "#video-table .links a")[0]
    start, end = segment_of(link)
    link.click()
    second_played(opened, start)
    opened.execute_script("document.querySelector('#video-table video').currentTime = arguments[0]", end - 0.2)
    wait(opened, LAST_RESORT_S, 0.05).until(
        lambda browser: browser.execute_script("return document.querySelector('#video-table video').paused")
    )
    assert end <= second_played(opened, end) < end + 2


def test_a_film_that_cannot_be_played_is_told(opened: Any) -> None:
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    filter_videos(opened, "a b#")  # its file is empty
    open_time_lines(opened, 0)
    opened.find_element("css selector", "#video-table .links a").click()
    wait(opened, LAST_RESORT_S, 0.05).until(lambda browser: texts(browser, "#video-table .film .quiet"))
    assert texts(opened, "#video-table .film a") == ["a b#c%?.webm"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the same detections without their ground truth; curves of one video."""
    sets = {name: matching.detections for name, matching in sample().items()}
    videos = videos_of_detections(list(sets.values()))
    seconds = np.arange(600.0)
    curves = {"clip 03": {"foreground": (seconds, np.full(600, 0.25)), "run": (seconds, seconds % 2)}}
    data = detections_data(sets, videos, title="t", curves=curves, footer=[("made", "then"), ("command", SCRIPT)])
    path = tmp_path_factory.mktemp("alone") / "report.html"
    write_report(path, data, {})
    return path


def test_without_ground_truth_it_shows_what_was_found(opened: Any, alone: Path) -> None:
    shown(opened, alone)
    sets = list(sample().values())
    total = sum(map(len, sets[-1].detections.values()))
    assert texts(opened, "#headline")[0].startswith(f"{total} detections of iteration 1")
    assert texts(opened, "nav a") == texts(opened, "h2") == ["Scores", "Surest videos", "Classes", "Videos"]
    assert column(opened, "score-table", "detections") == [str(total)] * 2
    assert len(texts(opened, "#score-chart polyline")) == 2
    index = sets[-1].detections["clip 03"].classes.index("jump")
    jumps = sum(int((each.label_index == index).sum()) for each in sets[-1].detections.values())
    row = column(opened, "class-table", "class").index("jump")
    assert column(opened, "class-table", f"detections of iteration 1 {SCRIPT}")[row] == str(jumps)
    assert len(texts(opened, "#ends .card")) == 4
    filter_videos(opened, "clip 03")
    open_time_lines(opened, 0)
    assert "ground truth" not in "".join(texts(opened, "#video-table tr.detail svg text"))
    assert len(texts(opened, "#video-table svg .curve")) == 2
    best = sets[-1].detections["clip 03"].score.max()
    assert float(column(opened, "video-table", f"iteration 1 {SCRIPT}")[0]) == pytest.approx(best, rel=1e-3)
    assert texts(opened, "footer dd") == ["then", SCRIPT]
    assert opened.execute_script("return window.hit") is None


def test_nothing_of_the_page_without_ground_truth_is_wider_than_a_phone(opened: Any, alone: Path) -> None:
    shown_on_a_phone(opened, alone, 390)
    open_time_lines(opened, 0)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390


def test_a_page_of_no_detections(opened: Any, tmp_path: Path) -> None:
    write_report(tmp_path / "none.html", detections_data({"r": {}}, videos_of_detections([{}]), title="t"), {})
    shown(opened, tmp_path / "none.html")
    assert texts(opened, "#headline") == ["0 detections of r in 0 of 0 videos"]


def test_scores_come_first_on_a_phone(opened: Any, page: Path) -> None:
    shown_on_a_phone(opened, page, 390)
    assert texts(opened, "#headline strong")[0].endswith(" %")
    place = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
    assert opened.execute_script(place, "#score-table") < opened.execute_script(place, "#score-chart")
    for table in ("score-table", "class-table", "video-table"):
        right = "return document.querySelectorAll(`#${arguments[0]} th`)[1].getBoundingClientRect().right"
        assert opened.execute_script(right, table) <= 390, table  # the first score, beside the name


def test_the_headline_has_the_difference_and_its_paired_interval(opened: Any) -> None:
    matchings = list(sample().values())
    low, high = compare(matchings[1], matchings[0], resamples=50).average_mAP_interval
    text = texts(opened, "#headline")[0]
    assert text.endswith(f" points against iteration 0 (+{100 * low:.1f} to +{100 * high:.1f})")


def test_scores_that_are_all_equal_are_shown(opened: Any, tmp_path: Path) -> None:
    same = {"v": Detections(np.array([1.0]), np.array([2.0]), np.array([0.25]), np.array([0]), ("jump",))}
    write_report(tmp_path / "one.html", detections_data({"r": same}, videos_of_detections([same]), title="t"), {})
    shown(opened, tmp_path / "one.html")
    assert texts(opened, "#headline") == ["1 detection of r in 1 of 1 video"]
    open_time_lines(opened, 0)
    assert column(opened, "video-table", "best score") == ["0.25"]


def test_the_chart_has_titles_and_the_page_s_width(opened: Any) -> None:
    assert texts(opened, "#score-chart .axis") == ["tIoU threshold", "mAP (%)"]
    width = "return document.querySelector(arguments[0]).getBoundingClientRect().width"
    assert opened.execute_script(width, "#score-chart svg") == opened.execute_script(width, "main")


def test_the_menu_has_the_words_of_the_headings(opened: Any) -> None:
    assert texts(opened, "nav a") == texts(opened, "h2")


def test_time_lines_stay_open_when_the_table_changes(opened: Any) -> None:
    def names() -> set[str]:
        rows = "return [...document.querySelectorAll('tr.detail')].map(row => row.previousSibling.innerText)"
        return {text.split("\t")[0] for text in opened.execute_script(rows)}

    open_time_lines(opened, 3, 7)
    first = names()
    assert len(first) == 2
    for title in ("seconds", "video", "video"):  # the last one: upside down
        press(opened, "video-table", title)
        assert names() == first
    assert len(texts(opened, "#video-table button[aria-expanded=true]")) == 2
    video = min(first)
    filter_videos(opened, video)
    assert names() == {video}
    opened.find_element("css selector", "#video-table button[aria-expanded=true]").click()
    assert names() == set()


def long_names() -> dict[str, Matching]:
    """Three sets; classes of 200 letters; bounds of groups with decimals; values of 100; segments after the end."""
    classes = ("x" * 200, "two words " * 20, "jump")
    videos, detections = {}, {}
    for index in range(12):
        start = np.array([0.0, 10.0, 30.0 + index, 95.0])
        name = f"{'v' * 120}{index}"
        label = (classes[index % 3],) * 4
        end = start + np.array([1.2345, 3.4567, 5.0 + index / 7, 15.0])
        videos[name] = VideoAnnotation(name, classes, duration_s=100.0, start=start, end=end, segment_labels=label)
        detections[name] = Detections(start, end, np.arange(4.0), np.full(4, index % 3), classes)
    truth = Annotations(videos, f"{'t' * 150}.csv")
    return {f"{'r' * 90}{k}": match_detections(detections if k else {}, truth, TIOUS) for k in range(3)}


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "report.html"
    return written(path, long_names(), figures=True, title="T" * 200, resamples=20)


def shown_on_a_phone(browser: Any, page: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    shown(browser, page)


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_phone(opened: Any, long_page: Path, width: int) -> None:
    shown_on_a_phone(opened, long_page, width)
    open_time_lines(opened, 3, 8)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    # The table scrolls; the time lines in it are as wide as the screen.
    bounds = "return [...document.querySelectorAll('tr.detail svg')].map(line => line.getBoundingClientRect().right)"
    right = opened.execute_script(bounds)
    assert len(right) == 2
    assert max(right) <= width
    # Only what is in a table stands out of the page.
    outside = (
        "return [...document.querySelectorAll('main *')].filter(part => !part.closest('.scroll')"
        " && part.getBoundingClientRect().right > arguments[0] + 0.5).map(part => part.outerHTML)"
    )
    assert opened.execute_script(outside, width) == []


def test_names_stay_in_place_while_a_table_scrolls(opened: Any, page: Path) -> None:
    shown_on_a_phone(opened, page, 390)
    lefts = (
        "const box = document.getElementById('score-table'); box.scrollLeft = arguments[0];"
        "return [...box.querySelectorAll('tbody tr:first-child td')].map(cell => cell.getBoundingClientRect().left)"
    )
    name, _, number, *_ = opened.execute_script(lefts, 0)
    assert number <= 390  # the first score is whole
    name_then, _, number_then, *_ = opened.execute_script(lefts, 60)
    assert name_then == name
    assert number_then < number - 20


def test_one_video_has_neither_best_nor_worst(opened: Any, tmp_path: Path) -> None:
    matchings = sample()
    for name, matching in matchings.items():
        alone = Annotations({"clip 03": matching.annotations["clip 03"]})
        matchings[name] = match_detections(matching.detections, alone, TIOUS)
    shown(opened, written(tmp_path / "one.html", matchings))
    assert "Best and worst" not in texts(opened, "nav a")
    assert texts(opened, "#ends") == []


def test_fifteen_sets_have_colours_of_their_own(opened: Any, tmp_path: Path) -> None:
    two = list(sample().values())
    shown(opened, written(tmp_path / "many.html", {f"iteration {k}": two[k % 2] for k in range(15)}))
    for scheme in ("light", "dark"):
        in_colours(opened, scheme)
        shades = opened.execute_script(
            "return [...document.querySelectorAll('#score-chart .swatch')]"
            ".map(swatch => getComputedStyle(swatch).backgroundColor)"
        )
        values = channels(opened, shades)
        assert len(values) == 15
        apart = min(np.linalg.norm(np.subtract(a, b)) for k, a in enumerate(values) for b in values[:k])
        assert apart > 35  # of 441


def test_a_lane_a_class_and_what_lies_beyond_the_end(opened: Any, tmp_path: Path) -> None:
    classes = tuple(f"class{index}" for index in range(12))
    start = np.concatenate([np.arange(24.0) * 4, [98.0, 105.0]])
    label = np.arange(26) % 12
    video = VideoAnnotation(
        "v", classes, duration_s=100.0, start=start, end=start + 8, segment_labels=tuple(classes[k] for k in label)
    )
    detections = {"v": Detections(start, start + 8, np.arange(26.0), label, classes)}
    (tmp_path / "v.mp4").write_bytes(b"")
    matchings = {"r": match_detections(detections, Annotations({"v": video}), [0.5])}
    shown(opened, written(tmp_path / "lanes.html", matchings, films=tmp_path, relative_to=tmp_path))
    open_time_lines(opened, 0)
    bars = opened.execute_script(
        "return [...document.querySelectorAll('#video-table svg .bar')].map(bar => [bar.textContent.split(' ')[0],"
        " ...['x', 'width', 'y', 'height'].map(name => +bar.getAttribute(name))])"
    )
    assert len(bars) == 52
    for rows in (bars[:26], bars[26:]):
        spans = {
            name: (min(y for n, _, _, y, _ in rows if n == name), max(y + h for n, _, _, y, h in rows if n == name))
            for name in classes
        }
        ordered = [spans[name] for name in classes]  # class 2 before class 10
        assert all(above[1] < below[0] for above, below in itertools.pairwise(ordered))
    # The last annotation, 105 to 113 s of 100 s, is drawn inside the picture; the end is marked, before it.
    edge = max(x + width for _, x, width, _, _ in bars)
    mark = float(opened.execute_script("return document.querySelector('#video-table svg .end').getAttribute('x1')"))
    assert mark < max(x for _, x, _, _, _ in bars) < edge
    assert "Dashed: the video's end, 1:40." in texts(opened, "#video-table .keys")[0]
    # Links in words: twelve, and how many more.
    assert len(texts(opened, "#video-table .links a")) == 12
    assert texts(opened, "#video-table .links")[0].endswith("and 14 more, which the bars above play.")


def channels(browser: Any, colours: list[str]) -> list[list[float]]:
    """Red, green and blue, 0 to 255, of any colours that the browser knows, as they are painted."""
    painted: list[list[float]] = browser.execute_script(
        "const c = document.createElement('canvas').getContext('2d');"
        "return arguments[0].map(colour => { c.fillStyle = colour; c.fillRect(0, 0, 1, 1);"
        " return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3) })",
        colours,
    )
    return painted


def in_colours(browser: Any, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def test_dark_mode_keeps_contrast(opened: Any) -> None:
    def luminances(colours: list[str]) -> list[float]:
        values = np.array(channels(opened, colours)) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return (linear @ [0.2126, 0.7152, 0.0722]).tolist()

    def contrast(selector: str) -> float:
        """Of the text of the first such element, on the first background behind it that is one."""
        colours = opened.execute_script(
            "const element = document.querySelector(arguments[0]), style = getComputedStyle(element);"
            "let behind = element;"
            "while (/, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;"
            "return [element instanceof SVGElement ? style.fill : style.color,"
            " getComputedStyle(behind).backgroundColor]",
            selector,
        )
        dark, light = sorted(luminances(colours))
        return (light + 0.05) / (dark + 0.05)

    open_time_lines(opened, column(opened, "video-table", "video").index("clip 03"))
    backgrounds = []
    for scheme in ("light", "dark"):
        in_colours(opened, scheme)
        assert contrast("body") > 7  # WCAG's AAA for text, and AA for the rest
        for selector in (
            "nav a", "#about", ".interval", ".better", ".worse", ".keys .key", "summary", "#found svg text",
            ".card h3 .quiet", "#video-table td button", "tr.detail .key", "tr.detail .links a", "tr.detail svg text",
            "tr.detail svg text.quiet", "#score-chart text", ".count", ".filter input",
        ):  # fmt: skip
            assert contrast(selector) > 4.5, (scheme, selector)
        backgrounds += luminances([opened.execute_script("return getComputedStyle(document.body).backgroundColor")])
    assert backgrounds[1] < 0.05 < 0.9 < backgrounds[0]


def test_the_authors_predictions(opened: Any, shared_data: Path, tmp_path: Path) -> None:
    release = shared_data / "refineloc-release"
    truth = read_annotations(release / "activitynet_v1-2_valid_groundtruth.csv")
    matchings = {
        f"iteration {k}": match_detections(read_detections(release / f"valid_predictions_iteration_000{k}.json"), truth)
        for k in (0, 1)
    }
    shown(opened, written(tmp_path / "report.html", matchings))
    assert [text.split()[0] for text in column(opened, "score-table", "average")] == ["9.66", "19.14"]
    assert texts(opened, "#videos .count") == [f"{len(truth)} of {len(truth)}"]
    assert len(texts(opened, "#video-table tbody tr")) == 50  # the others on request
