"""Which labelled videos train and which validate: subsets, leaks, and a share that is held out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from small_data import drop_times, files

from refineloc.runtime.annotations import read_annotations
from refineloc.runtime.errors import AnnotationError
from refineloc.runtime.features.opening import open_features
from refineloc.training.data.inputs import Files, Inputs, read_inputs
from refineloc.training.settings.config import resolve


def read(given: Files, memory: int = 2**30) -> Inputs:
    return read_inputs(given, resolve({}), memory)


@pytest.fixture
def whole(data: Path) -> Files:
    """One file of features and one JSON with three subsets, of which the last has no features."""
    database = {}
    for split, subset in (("train", "training"), ("val", "validation")):
        for name, video in read_annotations(data / f"{split}.csv").items():
            segments = zip(video.segment_labels, video.start.tolist(), video.end.tolist(), strict=True)
            annotations = [{"label": label, "segment": [start, end]} for label, start, end in segments]
            database[name] = {"subset": subset, "fps": video.fps, "annotations": annotations}
    database["test00"] = {"subset": "testing", "annotations": []}
    (data / "all.json").write_text(json.dumps({"database": database}))
    with h5py.File(data / "val.h5") as val, h5py.File(data / "train.h5", "a") as file:
        for name in val:
            val.copy(name, file)
    return Files(data / "train.h5", data / "all.json")


def rename(path: Path, **names: str) -> None:
    text = path.read_text()
    for name, other in names.items():
        text = text.replace(f'"subset": "{name}"', f'"subset": "{other}"')
    path.write_text(text)


def test_a_file_of_all_subsets_is_not_trained_on_whole(data: Path, whole: Files) -> None:
    for given in (whole, replace(whole, val_features=whole.features, val_labels=whole.labels)):
        inputs = read(given)
        assert inputs.train.names == tuple(f"train{index:02}" for index in range(12))
        assert inputs.val.names == tuple(f"val{index:02}" for index in range(6))
        assert (inputs.record.subset, inputs.record.val_subset) == ("training", "validation")
        assert inputs.notes == tuple(
            f"{data / 'all.json'}: {use}; there are testing (1 video), training (12 videos), validation (6 videos)"
            for use in ("trained on the subset 'training'", "validated on the subset 'validation'")
        )
        # Times of the other subsets would be misses.
        assert inputs.truth.train is not None
        assert inputs.truth.val is not None
        assert set(inputs.truth.train) == set(inputs.train.names)
        assert set(inputs.truth.val) == set(inputs.val.names)


def test_subsets_are_named_where_their_names_do_not_say_it(whole: Files) -> None:
    rename(whole.labels, training="Validation", validation="Test")  # as THUMOS14's
    listed = r"Test \(6 videos\), Validation \(12 videos\), testing \(1 video\)"
    with pytest.raises(AnnotationError, match=rf"several subsets, {listed}; name the one for training") as raised:
        read(whole)
    assert raised.value.parameter == "subset"
    with pytest.raises(AnnotationError, match=rf"no video of subset 'val'; there are {listed}"):
        read(replace(whole, subset="val"))
    inputs = read(replace(whole, subset="Validation", val_subset="Test"))
    assert (len(inputs.train), len(inputs.val), inputs.notes) == (12, 6, ())
    other = Path(shutil.copy(whole.labels, whole.labels.with_name("other.json")))
    rename(other, Validation="first")
    with pytest.raises(AnnotationError, match=r"other.json: has several .*; name the one for validation") as raised:
        read(replace(whole, subset="Validation", val_labels=other))
    assert raised.value.parameter == "val_subset"


def test_a_share_of_the_subset_that_is_trained_on(whole: Files) -> None:
    rename(whole.labels, validation="held back")
    inputs = read(whole)
    assert {name[:5] for name in inputs.train.names + inputs.val.names} == {"train"}
    assert (len(inputs.train), len(inputs.val)) == (9, 3)  # every class is validated: more than a fifth of 12
    assert (inputs.record.val_share, inputs.record.val_seed) == (0.2, 0)
    assert inputs.val.classes == inputs.train.classes == ("dive", "jump", "run")
    assert len({inputs.labels.val[name].labels for name in inputs.val.names}) == 3
    assert "3 of 12 videos (a share of 0.2) are held out" in inputs.notes[-1]
    more = read(replace(whole, val_share=0.5, val_seed=1))
    assert (len(more.train), len(more.val)) == (6, 6)
    assert (more.record.val_share, more.record.val_seed) == (0.5, 1)


def test_one_file_of_features_may_have_the_videos_of_two_files_of_labels(data: Path, whole: Files) -> None:
    inputs = read(Files(whole.features, data / "train.csv", val_labels=data / "val.csv"))
    assert (len(inputs.train), len(inputs.val)) == (12, 6)


def test_classes_of_one_video_stay_in_training_and_are_counted(data: Path) -> None:
    text = (data / "train.csv").read_text().replace(",jump,", ",leap,", 1)
    (data / "train.csv").write_text(text)
    inputs = read(Files(data / "train.h5", data / "train.csv"))
    assert inputs.notes[-1].endswith("; 1 class of one video stays in training, the first is 'leap'")
    assert "leap" not in inputs.labels.val.classes


def test_a_video_without_features_is_never_held_out(data: Path) -> None:
    with h5py.File(data / "train.h5", "a") as file:
        for index in range(1, 9):
            del file[f"train{index:02}"]
    given = Files(data / "train.h5", data / "train.csv", allow_missing=True)
    with open_features(given.features) as store:
        assert set(read(given).val.names) <= set(store.names)


def test_videos_in_both_splits_are_refused_unless_allowed(data: Path) -> None:
    given = files(data)
    same = replace(given, val_features=given.features, val_labels=given.labels)
    with pytest.raises(
        AnnotationError, match=r"train.csv: 12 of 12 validation videos are training videos too, the first is 'train00'"
    ) as raised:
        read(same)
    assert raised.value.parameter == "allow_leaks"
    assert len(read(replace(same, allow_leaks=True)).val) == 12


def test_the_same_features_under_two_names_are_refused_unless_allowed(data: Path) -> None:
    given = files(data)
    drop_times(data)  # whose durations are those of other features
    with h5py.File(data / "train.h5") as train, h5py.File(data / "val.h5", "a") as val:
        del val["val03"]
        val["val03"] = train["train07"][:]
        del val["val04"]
        val["val04"] = train["train07"][:-1]  # a part of it is another video
    with pytest.raises(
        AnnotationError,
        match=r"val.csv: 1 of 6 validation videos has a training video's features, the first is 'val03' \('train07'\)",
    ) as raised:
        read(given)
    assert raised.value.parameter == "allow_leaks"
    read(replace(given, allow_leaks=True))
    read(given, memory=0)  # those that stay on the disk are not compared


def forget(path: Path, *names: str) -> None:
    """Leave videos of a JSON without a label."""
    document = json.loads(path.read_text())
    for name in names:
        document["database"][name]["annotations"] = []
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("names", [("train03", "train04"), ("val01",)])
def test_videos_without_a_label_are_refused_left_out_or_background(whole: Files, names: tuple[str, ...]) -> None:
    forget(whole.labels, *names)
    of_which = 12 if names[0].startswith("train") else 6
    have = "has" if len(names) == 1 else "have"
    what = rf"all.json: {len(names)} of {of_which} videos {have} no label, the first is '{names[0]}'; "
    with pytest.raises(AnnotationError, match=f"{what}label them") as raised:
        read(whole)
    assert raised.value.parameter == "unlabelled"
    left = read(replace(whole, unlabelled="leave-out"))
    assert not set(names) & {*left.train.names, *left.val.names}
    assert sum(note.endswith("; left out") for note in left.notes) == 1
    assert left.train.background is None
    assert left.val.background is None
    inputs = read(replace(whole, unlabelled="negatives"))
    split = inputs.train if names[0].startswith("train") else inputs.val
    assert sum(note.endswith("; background throughout") for note in inputs.notes) == 1
    assert split.background is not None
    assert [name for name, background in zip(split.names, split.background, strict=True) if background] == list(names)
    assert split.judged is None
    assert split.targets.sum(dim=1).tolist() == pytest.approx([float(name not in names) for name in split.names])


def test_videos_without_a_label_are_shared_out_among_both_parts(whole: Files) -> None:
    rename(whole.labels, validation="held back")
    forget(whole.labels, "train01", "train02", "train04", "train05")
    inputs = read(replace(whole, unlabelled="negatives"))
    assert inputs.val.background is not None
    assert inputs.val.background.sum() == 1
    forget(whole.labels, *(f"train{index:02}" for index in range(12)))
    with pytest.raises(AnnotationError, match="no video has a label"):
        read(replace(whole, unlabelled="leave-out"))


def test_ambiguous_among_the_classes_is_warned_of(data: Path) -> None:
    for name in ("train.csv", "val.csv"):
        (data / name).write_text((data / name).read_text().replace(",jump,", ",Ambiguous,"))
    assert read(files(data)).notes == (
        f"warning: {data / 'train.csv'}: 'Ambiguous' is trained as a class; if it marks what nobody is sure of, as in "
        "THUMOS14, take it out of the file",
    )


def test_classes_of_the_validation_labels_alone_are_warned_of(data: Path) -> None:
    text = (data / "val.csv").read_text().replace(",jump,", ",leap,", 1)
    (data / "val.csv").write_text(text)
    inputs = read(files(data))
    assert inputs.notes == (
        f"warning: {data / 'val.csv'}: labels that no training video has: 1 (in videos: 1), the first is 'leap'; "
        "left out of the validation loss, and never detected: AP 0",
    )
    assert inputs.val.classes == ("dive", "jump", "run")
    assert inputs.val.judged is not None
    assert inputs.val.judged.tolist() == [True, False, True, True, True, True]
    assert inputs.val.background is None
    (data / "val.csv").write_text((data / "val.csv").read_text().replace(",jump,", ",leap,").replace(",run,", ",go,"))
    (data / "val.csv").write_text((data / "val.csv").read_text().replace(",dive,", ",fall,"))
    with pytest.raises(AnnotationError, match=r"val.csv: no video has a label that occurs in the training labels"):
        read(files(data))
