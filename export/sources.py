"""What can be exported: an iteration of a run, or a checkpoint of the authors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from refineloc import __version__
from refineloc.export.checkpoints import read_checkpoint, read_class_names
from refineloc.runtime.errors import ConfigError, ModelError
from refineloc.runtime.files import is_folder
from refineloc.runtime.model.metadata import ModelMetadata
from refineloc.runtime.segments.rules import OneThreshold
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.ensemble import members_of
from refineloc.training.run.choice import best_of
from refineloc.training.run.files import LoadedIteration, load_iteration, read_records
from refineloc.training.run.folder import RunFolder, runs_in
from refineloc.training.run.trained import TrainedRun
from refineloc.training.settings.config import SNIPPET_FRAMES, Config, resolve
from refineloc.training.settings.own_files import plain_name

__all__ = ["Trained", "from_checkpoint", "from_run", "from_trained"]

# The settings that a checkpoint's config must state, and their section in our configuration.
_STATED = {
    "snippet_frames": "features",
    "stream": "features",
    "alpha_a": "detection",
    "alpha_c": "detection",
    "top_k": "detection",
    "widen": "detection",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, and the metadata of its file.

    Attributes:
        model: on the CPU, in evaluation mode.
        metadata: of precision fp32, without parity.
        features, labels: the run's validation data, to measure the file on; None for a checkpoint.
        subset: of the labels.
        fps: of videos for which these do not state it, None if not known.
        warnings: of its iteration, as training gave them.
    """

    model: BaseModel
    metadata: ModelMetadata
    features: Path | None = None
    labels: Path | None = None
    subset: str | None = None
    fps: float | None = None
    warnings: tuple[str, ...] = ()


def from_run(folder: Path | None, iteration: int | Literal["best"] | None, *, single: bool = False) -> Trained:
    """A trained iteration of a run of refineloc-train.

    Args:
        folder: of the run; None for the newest under runs/.
        iteration: None for the last finished one, "best" for the best without times (`choose`).
        single: of an ensemble the member with the lowest validation loss alone.

    Raises:
        ModelError: no such run, or no such iteration (the message says which there are); or "best" where the records
            of the run do not tell.
    """
    run = folder if folder is not None else _newest_run(Path("runs"))
    if not is_folder(run, ModelError):
        runs = [str(path) for path in runs_in(run.parent)]
        more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
        raise ModelError(f"{run}: no such run" + (f"; there are {', '.join(runs[:5])}{more}" if runs else ""))
    if iteration == "best":
        iteration = best_of(read_records(run), str(run)).iteration
    return _of_iteration(
        load_iteration(run, iteration if iteration is not None else max(_finished(run) - 1, 0)),
        single,
        RunFolder(run),
    )


def from_trained(run: TrainedRun, iteration: int | Literal["best"] | None, *, single: bool = False) -> Trained:
    """A trained iteration of a run that `refineloc.training.train` gave.

    Args:
        run: with a folder or without.
        iteration, single: as for `from_run`.

    Raises:
        ModelError: no such iteration.
    """
    count = len(run.records)
    number = run.best if iteration == "best" else count - 1 if iteration is None else iteration
    if not isinstance(number, int) or not 0 <= number < count:
        raise ModelError(f"iteration: has to be one of 0 to {count - 1}, or best, got {number!r}")
    loaded = LoadedIteration(run.iterations[number].model, run.config, run.data, number, run.records[number])
    return _of_iteration(loaded, single, None)


def _of_iteration(loaded: LoadedIteration, single: bool, folder: RunFolder | None) -> Trained:
    config, data, model = loaded.config.of_iteration(loaded.iteration), loaded.data, loaded.model
    if single and len(members := members_of(model)) > 1:
        model = members[_best_member(loaded.record)].eval()
    return Trained(
        model,
        _metadata(
            config,
            model,
            data.classes,
            data.width,
            loaded.iteration,
            Path(data.train_features).name,
            _streaming("run" if folder is None else folder.records, loaded.record),
            data.backbone,
            _pseudo_labels(loaded),
        ),
        Path(data.val_features) if data.val_features else None,
        folder.split if folder and data.val_share else Path(data.val_labels) if data.val_labels else None,
        "validation" if data.val_share else data.val_subset or None,
        data.fps or None,
        tuple(loaded.record.get("warnings", ())),
    )


def from_checkpoint(path: Path, classes: Path, preset: str | None = None) -> Trained:
    """A checkpoint that the authors released, with the profile `release`.

    Args:
        path: the checkpoint.
        classes: names of its classes (see `read_class_names`).
        preset: for settings that the checkpoint's config does not state.

    Raises:
        ModelError: not such a checkpoint, another number of classes, or settings that neither it nor a preset states.
        ConfigError: no such preset.
    """
    checkpoint = read_checkpoint(path)
    names = read_class_names(classes, checkpoint.classes)
    missing = [key for key in _STATED if key not in checkpoint.config]
    if missing and preset is None:
        raise ModelError(
            f"{path}: its config does not state {', '.join(missing)}; give a preset for them, such as "
            "release-thumos14-tsn",
            parameter="preset",
        )
    stated: dict[str, dict[str, Any]] = {"features": {}, "detection": {"profile": "release"}}
    for key, value in checkpoint.config.items():
        stated[_STATED[key]][key] = value
    config = resolve({"preset": preset} if preset else {}, stated)
    return Trained(
        checkpoint.model,
        _metadata(config, checkpoint.model, names, checkpoint.width, checkpoint.iteration),
    )


def _metadata(
    config: Config,
    model: BaseModel,
    classes: tuple[str, ...],
    width: int,
    iteration: int,
    training_data: str = "",
    streaming: OneThreshold | None = None,
    backbone: str = "",
    pseudo_labels: str = "",
) -> ModelMetadata:
    return ModelMetadata(
        classes=classes,
        width=width,
        snippet_frames=config.features.snippet_frames or SNIPPET_FRAMES,
        stride_frames=config.features.stride_frames,
        stream=config.features.stream,
        stream_order=config.features.stream_order,
        detection=config.detection,
        preset=config.preset,
        base=Path(plain_name(config.model.base)).name,
        iteration=iteration,
        layers=model.layers,
        attention_values=model.attention_values,
        context_snippets=model.context_snippets,
        networks=len(members_of(model)),
        precision="fp32",
        training_data=training_data,
        backbone=backbone,
        pseudo_labels=pseudo_labels,
        producer=f"refineloc {__version__}",
        streaming=streaming,
    )


def _pseudo_labels(loaded: LoadedIteration) -> str:
    """The generator of what an iteration learnt from; iteration 0 and a student have none."""
    config, iteration = loaded.config, loaded.iteration
    return Path(plain_name(config.pseudo.generator)).name if iteration and not config.is_student(iteration) else ""


def _streaming(where: object, record: Mapping[str, Any]) -> OneThreshold | None:
    """The rule for running videos that training froze for an iteration."""
    if "streaming" not in record:
        return None
    try:
        return OneThreshold(**record["streaming"])
    except (TypeError, ConfigError) as error:
        raise ModelError(f"{where}: streaming: not the settings of one threshold: {error}") from error


def _best_member(record: Mapping[str, Any]) -> int:
    """The member with the lowest validation loss, the first of equals."""
    losses = [member["validation_loss"] for member in record["members"]]
    return losses.index(min(losses))


def _newest_run(parent: Path) -> Path:
    runs = [run for run in runs_in(parent) if _finished(run)]
    if not runs:
        raise ModelError(f"{parent}/: holds no run with a finished iteration; give the folder of one")
    return max(runs, key=lambda run: RunFolder(run).records.stat().st_mtime)


def _finished(run: Path) -> int:
    """How many iterations have a record; 0 for a damaged file, for which `load_iteration` raises the error."""
    try:
        return len(read_records(run))
    except ModelError:
        return 0
