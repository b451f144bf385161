"""Times that contradict the number of snippets: found, explained, and refused unless they are single odd ones."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest

from refineloc.runtime.errors import InputError, InputWarning
from refineloc.runtime.features.store import FeatureInfo
from refineloc.runtime.segments.agreement import TimedVideo, check_times, contradiction
from refineloc.runtime.segments.times import VideoTimes, video_times

PATH = Path("f.h5")
PUBLISHED = Path(__file__).parents[3] / "../shared/data/refineloc-release"
DURATIONS = (64.9, 121.0, 37.3)


def video(
    snippets: int,
    duration_s: float | None = None,
    *,
    fps: float | None = 30.0,
    labels: VideoTimes | None = None,
    name: str = "v",
    width: int = 2048,
    stride: int | None = None,
) -> TimedVideo:
    """Features of 16 frames a snippet that state this, and what labels say."""
    info = FeatureInfo(name, snippets, width, np.dtype(np.float32), fps, duration_s, None, stride)
    grid = video_times(info, labels).grid(16, stride)
    assert grid is not None
    return TimedVideo(info, labels, grid)


def of_stride(frames: float, fps: float = 30.0, **more: object) -> list[TimedVideo]:
    """Videos whose snippets come every `frames` frames at `fps`, whatever is stated of them."""
    return [video(int(duration * fps / frames), duration, **more) for duration in DURATIONS]  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [4, 8, 32])
def test_features_of_another_stride_are_told_their_stride(stride: int) -> None:
    with pytest.raises(InputError) as caught:
        check_times(of_stride(stride), PATH)
    assert caught.value.parameter == "stride_frames"
    text = str(caught.value)
    assert text.startswith("f.h5: video 'v': ")
    assert f"is the stride {stride} frames" in text
    assert text.endswith(f"Give stride_frames={stride}")
    assert "in 2 more of 3 videos" in text


def test_the_message_has_the_arithmetic() -> None:
    message = (
        r"^f.h5: video 'v': 484 snippets x 16 frames at 30 fps = 258 s, the file says 64.9 s: is the stride 4 frames\?"
    )
    with pytest.raises(InputError, match=message):
        check_times([video(484, 64.9)], PATH)


def test_training_names_its_setting() -> None:
    message = r"Give features\.stride_frames=4, or features\.snippet_frames=4 where snippets do not overlap$"
    with pytest.raises(InputError, match=message) as caught:
        check_times(of_stride(4), PATH, settings="features.")
    assert caught.value.parameter == "setting"


def test_a_stated_stride_is_to_be_corrected() -> None:
    with pytest.raises(InputError, match=r"is the stride 4 frames.*Correct the stride_frames that they state$"):
        check_times(of_stride(4, stride=8), PATH)
    check_times(of_stride(4, stride=4), PATH)


@pytest.mark.parametrize(("unit", "factor"), [("milliseconds", 1000), ("frames", 30)])
def test_a_duration_in_another_unit_is_told(unit: str, factor: float) -> None:
    videos = [video(int(duration * 30 / 16), duration * factor) for duration in DURATIONS]
    with pytest.raises(InputError, match=rf"is the duration in {unit}\? Correct those that the features state$"):
        check_times(videos, PATH)


def test_features_of_another_frame_rate_are_told_it() -> None:
    """25 fps features under labels of 30: their T is that of 25, and the labels' fps is taken where they state none."""
    videos = [video(int(duration * 25 / 16), fps=None, labels=VideoTimes(30.0, duration)) for duration in DURATIONS]
    with pytest.raises(
        InputError, match=r"l.csv says 64.9 s .*were the features made at 25 fps. Give fps=25$"
    ) as caught:
        check_times(videos, PATH, "l.csv")
    assert caught.value.parameter == "fps"
    with pytest.raises(InputError, match=r"were the features made at 25 fps. Correct the fps that they state"):
        check_times(of_stride(16, fps=25.0), PATH)


def test_rates_may_differ_where_the_features_own_fits() -> None:
    for duration in DURATIONS:
        check_times([video(int(duration * 25 / 16), duration, fps=25.0, labels=VideoTimes(30.0, duration))], PATH)


def test_the_labels_rate_is_named_where_it_fits_and_the_features_does_not() -> None:
    videos = [video(int(each * 30 / 16), each, fps=25.0, labels=VideoTimes(30.0, each)) for each in DURATIONS]
    with pytest.raises(InputError, match=r"with the 30 fps of l.csv it fits"):
        check_times(videos, PATH, "l.csv")


@pytest.mark.parametrize("length", [100, 2048])
def test_a_number_of_snippets_that_all_videos_have_is_no_stride(length: int) -> None:
    message = f"all 3 videos have {length} snippets, whatever their duration: .*{length} x 16 / duration .*D x T"
    with pytest.raises(InputError, match=message):
        check_times([video(length, duration) for duration in DURATIONS], PATH)


def test_two_durations_are_both_named() -> None:
    one = video(121, 64.9, labels=VideoTimes(None, 0.667))
    message = "the file says 64.9 s, l.csv says 0.667 s, and 121 snippets .* = 64.5 s: correct the duration in l.csv"
    with pytest.raises(InputError, match=message):
        check_times([one], PATH, "l.csv")
    check_times([video(121, 64.9, labels=VideoTimes(None, 66.0))], PATH, "l.csv")


def test_what_is_not_known_contradicts_nothing() -> None:
    check_times([video(121), video(1, 0.1), video(3, 0.01)], PATH)


def test_a_few_odd_videos_among_many_are_a_warning() -> None:
    good = [video(int(each * 30 / 16), each) for each in np.linspace(20, 200, 98).tolist()]
    odd = video(121, 600.0, name="odd")
    with pytest.warns(InputWarning, match=r"video 'odd': 121 snippets .* 2 of 100 videos are so"):
        check_times([*good, odd, odd], PATH)
    with pytest.raises(InputError):
        check_times([*good, odd, odd, odd], PATH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_times(good, PATH)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published annotations are not here")
@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("thumos14_valid", 0),
        ("thumos14_test", 0),
        ("activitynet_v1-2_train", 56),
        ("activitynet_v1-2_valid", 24),
    ],
)
def test_published_annotations_go_through(name: str, odd: int) -> None:
    """With the snippets that their numbers of frames make: ActivityNet's have odd videos, which are no other stride."""
    with (PUBLISHED / f"{name}_groundtruth.csv").open() as handle:
        rows = {row["video-name"]: row for row in csv.DictReader(handle)}
    videos = []
    for row in rows.values():
        labels = VideoTimes(float(row["fps"]), float(row["video-duration"]))
        videos.append(video(int(float(row["video-num-frames"])) // 16, fps=None, labels=labels, name=row["video-name"]))
    assert sum(contradiction(each) != "" for each in videos) == odd
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_times(videos, PATH, "l.csv")
    assert [f"{odd} of {len(videos):,} videos are so" in str(each.message) for each in caught] == [True] * bool(odd)
