"""The report: its numbers, and the page in a real browser: it renders, sorts, filters, shows hostile names as text."""

import json
import re
import shutil
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refineloc.runtime.annotations import Annotations, VideoAnnotation, read_annotations
from refineloc.runtime.detections import Detections, read_detections
from refineloc.runtime.errors import InputError
from refineloc.runtime.evaluation import evaluate, match_detections
from refineloc.runtime.report import Run, report_data, write_report
from refineloc.runtime.report.data import video_scores
from refineloc.runtime.report.page import page_of

TIOUS = [0.3, 0.5, 0.7]
SCRIPT = "<script>window.hit = 1</script>"
IMAGE = '"><img src=x onerror="window.hit = 1">'
END = "</script><script>window.hit = 1</script>{{DATA}}"


def sample() -> tuple[Annotations, list[Run]]:
    """30 videos, some of them hostile by name, two runs of which the second is closer to the truth."""
    rng = np.random.default_rng(3)
    classes = ("jump", "run", SCRIPT)
    names = [f"clip {k:02d}" for k in range(27)] + [IMAGE, END, "a b#c%?"]
    videos, runs = {}, []
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
    for run, noise in (("iteration 0", 5.0), (f"iteration 1 {SCRIPT}", 0.8)):
        found = {}
        for index, name in enumerate(names):
            start = np.concatenate([videos[name].start + rng.normal(0, noise, len(videos[name].start)), [1.0]])
            label = np.append(np.full(len(start) - 1, index % 3), 1)
            found[name] = Detections(start, start + 8, rng.uniform(0, 2, len(start)), label, classes)
        runs.append(Run(run, found))
    return Annotations(videos, "<b>truth</b>.csv"), runs


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
    truth, runs = sample()
    data = report_data(
        runs, truth, TIOUS, title=f"Title {SCRIPT}", resamples=50, videos=folder / "films", relative_to=folder
    )
    write_report(folder / "report.html", data)
    return folder / "report.html"


def test_numbers_are_those_of_the_evaluation() -> None:
    truth, runs = sample()
    data = report_data(runs, truth, TIOUS, title="t", resamples=50)
    for index, run in enumerate(runs):
        result = evaluate(run.detections, truth, TIOUS)
        assert data["runs"][index]["mAP"] == result.mAP.tolist()
        assert data["runs"][index]["average_mAP"] == result.average_mAP
        low, high = data["runs"][index]["interval"]["average_mAP"]
        assert low < result.average_mAP < high
        for at, entry in enumerate(data["classes"]):
            assert entry["ap"][index] == result.ap[:, at].tolist()
            assert 0 <= entry["intervals"][index][0] <= np.mean(entry["ap"][index]) <= entry["intervals"][index][1] <= 1
    assert data["runs"][0]["average_mAP"] < data["runs"][1]["average_mAP"]
    json.dumps(data, allow_nan=False)


def test_a_videos_score_is_its_own_evaluation() -> None:
    truth, runs = sample()
    scores = video_scores(match_detections(runs[1].detections, truth, TIOUS), len(truth))
    assert len({round(float(score), 6) for score in scores if not np.isnan(score)}) > 5
    for index, (name, video) in enumerate(truth.items()):
        if not len(video.start):
            assert np.isnan(scores[index])
            continue
        alone = evaluate({name: runs[1].detections[name]}, Annotations({name: video}), TIOUS)
        assert scores[index] == pytest.approx(alone.average_mAP)


def test_without_intervals_and_with_one_threshold(tmp_path: Path) -> None:
    truth, runs = sample()
    data = report_data(runs[:1], truth, [0.5], title="one", resamples=0)
    assert data["runs"][0]["interval"] is None
    write_report(tmp_path / "one.html", data)


def test_input_errors(tmp_path: Path) -> None:
    truth, runs = sample()
    with pytest.raises(InputError, match="runs of different names"):
        report_data([runs[0], runs[0]], truth, title="t")
    with pytest.raises(InputError, match="no such folder of videos"):
        report_data(runs, truth, title="t", videos=tmp_path / "absent")


def test_one_file_that_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of SVG, which is not loaded
    assert not re.search(r"<(link|img|iframe|object|embed)\b", text.split('id="data">')[0])
    assert "@import" not in text


def test_data_cannot_end_its_element(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inside = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert "<" not in inside
    data = json.loads(inside)
    assert END in [row["name"] for row in data["videos"]]
    assert "<title>Title &lt;script&gt;" in text
    assert page_of(data) == text  # nothing inserted was taken for a place to insert at


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(service=webdriver.ChromeService(driver), options=options)
    yield opened
    opened.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page, freshly loaded at a desktop's width in light colours."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get(page.as_uri())
    deadline = time.monotonic() + 20
    while browser.execute_script("return document.documentElement.dataset.ready") != "true":
        assert time.monotonic() < deadline, browser.get_log("browser")
        time.sleep(0.05)
    return browser


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)", selector
    )
    return found


def column(browser: Any, table: str, title: str) -> list[str]:
    at = texts(browser, f"#{table} th").index(title)
    return texts(browser, f"#{table} tbody tr:not(.detail) td:nth-child({at + 1})")


def press(browser: Any, table: str, title: str) -> None:
    browser.execute_script(
        "[...document.querySelectorAll(`#${arguments[0]} th button`)]"
        ".find((button) => button.textContent === arguments[1]).click()",
        table,
        title,
    )


def test_it_renders_without_a_complaint(opened: Any) -> None:
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    truth, runs = sample()
    results = [evaluate(run.detections, truth, TIOUS) for run in runs]
    shown = [text.split()[0] for text in column(opened, "score-table", "average")]
    assert shown == [f"{100 * result.average_mAP:.2f}" for result in results]
    assert len(texts(opened, "#class-table tbody tr")) == 3
    assert len(texts(opened, "#video-table tbody tr")) == 30
    assert len(texts(opened, "#profile svg")) == 2
    assert len(texts(opened, "#score-chart polyline")) == 2
    assert len(texts(opened, "#ends-list .card")) == 8
    # Of the drawn stack of 1G, the true positives' share is the diagnosis's.
    title = texts(opened, "#profile > div:nth-child(2) rect title")[0]
    data = report_data(runs, truth, TIOUS, title="t", resamples=0)
    share = data["runs"][1]["diagnosis"]["false_positives"]["share"]["true positive"][0]
    assert title.startswith(f"true positive, 1G: {100 * share:.1f} %")


def test_hostile_names_are_text(opened: Any) -> None:
    assert opened.execute_script("return window.hit") is None
    assert opened.execute_script("return document.querySelectorAll('script').length") == 2
    assert opened.execute_script("return document.querySelectorAll('body img').length") == 0
    assert f"Title {SCRIPT}" in texts(opened, "h1")
    assert SCRIPT in column(opened, "class-table", "class")
    assert {IMAGE, END} <= set(column(opened, "video-table", "video"))
    for row in range(30):  # every time line, opened
        opened.execute_script("document.querySelectorAll('#video-table td button')[arguments[0]].click()", row)
    assert len(texts(opened, "#video-table tr.detail svg")) == 30
    assert opened.execute_script("return window.hit") is None
    # And where a script did get in, the page's policy would not run it.
    opened.execute_script(
        "const s = document.createElement('script'); s.text = 'window.hit = 2'; document.body.append(s)"
    )
    assert opened.execute_script("return window.hit") is None


def test_it_sorts(opened: Any) -> None:
    def values() -> list[float | None]:
        shown = column(opened, "video-table", "iteration 0")
        return [None if text == "–" else float(text) for text in shown]

    assert column(opened, "video-table", "video") == sorted(column(opened, "video-table", "video"), key=str.lower)
    press(opened, "video-table", "iteration 0")
    falling = values()
    known = [value for value in falling if value is not None]
    assert known == sorted(known, reverse=True)
    assert len(set(known)) > 3
    assert falling[len(known) :] == [None] * 8  # videos without annotations, last
    press(opened, "video-table", "iteration 0")
    rising = values()
    assert rising[: len(known)] == sorted(known)
    assert rising[len(known) :] == [None] * 8  # and last again
    sorts = opened.execute_script(
        "return [...document.querySelectorAll('#video-table th')].map((head) => head.getAttribute('aria-sort'))"
    )
    assert sorts.count("ascending") == 1
    press(opened, "class-table", "instances")
    assert [int(text) for text in column(opened, "class-table", "instances")] == sorted(
        (int(text) for text in column(opened, "class-table", "instances")), reverse=True
    )


def test_it_filters(opened: Any) -> None:
    field = opened.find_element("css selector", "#video-filter")
    field.send_keys("CLIP 1")
    assert column(opened, "video-table", "video") == [f"clip {k}" for k in range(10, 20)]
    assert texts(opened, "#videos .count") == ["10 of 30"]
    field.clear()
    field.send_keys("<img")
    assert column(opened, "video-table", "video") == [IMAGE]
    field.clear()
    field.send_keys("nothing like it")
    assert column(opened, "video-table", "video") == []
    field.clear()
    field.send_keys("jump")  # by class too
    assert set(column(opened, "video-table", "classes")) == {"jump"}


def test_a_video_opens_its_time_line_with_links_that_seek(opened: Any, page: Path) -> None:
    opened.find_element("css selector", "#video-filter").send_keys("clip 03")
    button = opened.find_element("css selector", "#video-table td button")
    button.click()
    truth, runs = sample()
    video = truth["clip 03"]
    links = opened.execute_script(
        "return [...document.querySelectorAll('#video-table tr.detail svg a')].map((link) => link.getAttribute('href'))"
    )
    assert len(links) == len(video.start) + sum(len(run.detections["clip 03"]) for run in runs)
    assert links[0] == f"./films/clip%2003.mp4#t={round(video.start[0], 2)},{round(video.end[0], 2)}"
    button.click()
    assert texts(opened, "#video-table tr.detail") == []
    # A name with characters that mean something in an address finds its file all the same.
    opened.find_element("css selector", "#video-filter").clear()
    opened.find_element("css selector", "#video-filter").send_keys("a b#")
    opened.find_element("css selector", "#video-table td button").click()
    href = opened.execute_script("return document.querySelector('#video-table tr.detail a').getAttribute('href')")
    address = opened.execute_script("return new URL(arguments[0], location).href.split('#')[0]", href)
    assert address == (page.parent / "films" / "a b#c%?.webm").as_uri()


def test_a_link_plays_the_file_from_its_segment_on(opened: Any) -> None:
    opened.find_element("css selector", "#video-filter").send_keys("clip 03")
    opened.find_element("css selector", "#video-table td button").click()
    link = opened.find_elements("css selector", "#video-table tr.detail div > div > a")[1]
    start, end = (float(value) for value in link.get_attribute("href").split("#t=")[1].split(","))
    page = opened.current_window_handle
    link.click()
    opened.switch_to.window(next(handle for handle in opened.window_handles if handle != page))
    try:
        at, deadline = 0.0, time.monotonic() + 15
        while at < start and time.monotonic() < deadline:
            at = opened.execute_script("return document.querySelector('video')?.currentTime ?? 0")
            time.sleep(0.05)
        assert 5 < start <= at <= end + 0.5  # it began at the segment, not at 0, and ends with it
    finally:
        opened.close()
        opened.switch_to.window(page)


@pytest.mark.parametrize("width", [360, 390, 768])
def test_nothing_is_wider_than_a_phone(opened: Any, page: Path, width: int) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    opened.get(page.as_uri())
    for row in (3, 28):
        opened.execute_script("document.querySelectorAll('#video-table td button')[arguments[0]].click()", row)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    # The table scrolls; the time lines in it are as wide as the screen.
    bounds = "return [...document.querySelectorAll('tr.detail svg')].map(one => one.getBoundingClientRect().right)"
    right = opened.execute_script(bounds)
    assert len(right) == 2
    assert max(right) <= width


def test_a_lone_last_profile_is_no_wider_than_the_others(opened: Any) -> None:
    widths = "return [...document.querySelectorAll('#profile > *')].map(one => one.getBoundingClientRect().width)"
    another = "const all = document.getElementById('profile'); all.append(all.firstElementChild.cloneNode(true))"
    assert len(opened.execute_script(widths)) == 2
    for _ in range(3):
        opened.execute_script(another)
        assert len(set(opened.execute_script(widths))) == 1


def test_dark_mode_keeps_contrast(opened: Any) -> None:
    def contrast() -> float:
        colours = opened.execute_script(
            "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        )
        light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    def luminance(colour: str) -> float:
        channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    def page_colour() -> str:
        return str(opened.execute_script("return getComputedStyle(document.body).backgroundColor"))

    shades = {}
    for scheme in ("light", "dark"):
        opened.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        assert contrast() > 7  # WCAG's AAA for text
        shades[scheme] = luminance(page_colour())
    assert shades["dark"] < 0.05 < 0.9 < shades["light"]


def test_the_authors_predictions(opened: Any, shared_data: Path, tmp_path: Path) -> None:
    release = shared_data / "refineloc-release"
    truth = read_annotations(release / "activitynet_v1-2_valid_groundtruth.csv")
    runs = [
        Run(f"iteration {k}", read_detections(release / f"valid_predictions_iteration_000{k}.json")) for k in (0, 1)
    ]
    write_report(tmp_path / "report.html", report_data(runs, truth, title="ActivityNet", resamples=20))
    opened.get((tmp_path / "report.html").as_uri())
    assert opened.execute_script("return document.documentElement.dataset.ready") == "true"
    assert [text.split()[0] for text in column(opened, "score-table", "average")] == ["9.66", "19.14"]
    assert texts(opened, "#videos .count") == [f"{len(truth)} of {len(truth)}"]
    assert len(texts(opened, "#video-table tbody tr")) == 50  # the others on request
