"""The files of a run. A kill at any moment leaves a run that can go on: files are written aside and renamed.

`folder.py` has their names. An iteration is finished when the file of records has its record, which is written last. Of
an unfinished one finished networks are kept; the next goes on from its checkpoint, or from its beginning with the same
seed, so a resumed run ends with the numbers of one never killed. Lines of epochs are appended; those that will be
trained again are dropped.
"""

import contextlib
import json
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from refineloc.runtime.detections import Detections, read_detections, write_detections
from refineloc.runtime.errors import ConfigError, ModelError
from refineloc.runtime.files import atomic_write, claim_folder, make_folder, writing
from refineloc.training.data.record import DataRecord
from refineloc.training.machine import parallel
from refineloc.training.members import Network
from refineloc.training.models.base_model import BaseModel
from refineloc.training.models.ensemble import build_models, build_network
from refineloc.training.run.checkpoint import Checkpoint, NetworkKey
from refineloc.training.run.folder import RunFolder
from refineloc.training.settings.config import Config, validated
from refineloc.training.settings.own_files import is_own, own_file, same_file

__all__ = [
    "LoadedIteration",
    "Run",
    "best_iteration",
    "copy_first_iteration",
    "count_epochs",
    "load_iteration",
    "read_epochs",
    "read_records",
]

_FORMAT = "refineloc-1"
# Settings that a resumed run may change: how long it is, and how often it is kept.
_FREE = ("training.iterations", "training.stop_after", "training.stop_by", "training.checkpoint_s")
_KEY = "refineloc"  # of the metadata of safetensors files
_CURE = "put the file back as it was, or begin another run"
_CURE_CHECKPOINT = "delete it, and the iteration begins anew"


@dataclass(frozen=True, slots=True)
class LoadedIteration:
    """One trained iteration, ready for export.

    Attributes:
        model: on the CPU, in evaluation mode.
        config, data: of the run.
        iteration: K.
        record: of the iteration.
    """

    model: BaseModel
    config: Config
    data: DataRecord
    iteration: int
    record: Mapping[str, Any]


class Run:
    """The folder of one run. Nothing is written before `begin`.

    Of several processes that train together only the first writes; all remember.

    Args:
        folder: of the run; it need not exist.
        config, data: what is about to be trained.
        resume: go on with what is there; without it a folder that holds a run is refused.

    Attributes:
        files: their names.
        records: of the finished iterations.
        checkpoint: of the network that is under way, None at its beginning.

    Raises:
        ConfigError: the folder holds a run and `resume` is False, or a run of other settings or data.
        ModelError: its files are damaged.
    """

    def __init__(self, folder: Path, config: Config, data: DataRecord, *, resume: bool = False) -> None:
        self.folder, self.config, self.data = folder, config, data
        self.files = RunFolder(folder)
        if self.files.is_run:
            if not resume:
                raise ConfigError(
                    f"{folder}: holds a run already; resume it, or begin another in another folder", parameter="resume"
                )
            _refuse_others(folder, config, data)
        self.records = read_records(folder)[: config.training.iterations]
        finished = self.files.networks(len(self.records)).keys()
        self.checkpoint = self._read_checkpoint(finished)
        # Lines of epochs that will be trained again are dropped.
        self._epochs = [line for line in read_epochs(folder) if self._is_kept(line, finished)]

    def begin(self) -> None:
        """Write the settings into the folder, which is made where it is not there.

        Raises:
            OutputError: it holds files that are not of a run, or cannot be written; so do all methods that write.
        """
        if parallel.rank():
            return
        if not self.files.is_run:
            claim_folder(self.folder, self.files.has, "a run")
        self._write(self.files.settings, tomli_w.dumps(_document(self.config, self.data)))
        lines = "".join(json.dumps(line) + "\n" for line in self._epochs)
        if self.files.metrics.exists() and self.files.metrics.read_bytes() != lines.encode():
            self._write(self.files.metrics, lines)
        self._remove_networks(len(self.records) - 1)

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.files.tensorboard

    @property
    def epochs_behind(self) -> int:
        """Epochs that need not be trained, of iterations as long as the settings say."""
        done = len(self.records)
        of_networks = len(self.files.networks(done)) * self.config.of_iteration(done).training.epochs
        return self.config.epochs_before(done) + of_networks + (self.checkpoint.epochs if self.checkpoint else 0)

    def add_epoch(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if not parallel.rank():
            with writing(self.files.metrics), self.files.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keep the state of the network that is under way; its epochs have been added."""
        if not parallel.rank():
            self._flush_epochs()
            stated = _stated(len(self.records), numbers=checkpoint.numbers)
            with atomic_write(self.files.checkpoint, "wb") as handle:
                handle.write(save(checkpoint.tensors, metadata=stated))

    def add_network(self, network: Network) -> None:
        """Keep a network until its iteration is finished."""
        if not parallel.rank():
            self._flush_epochs()
            iteration = len(self.records)
            make_folder(self.files.iteration(iteration), parents=False)
            _write_weights(
                self.files.network(iteration, *network.key),
                network.model,
                _stated(iteration, record=json.dumps(network.record)),
            )
        self._forget_checkpoint()

    def networks(self, device: torch.device) -> dict[NetworkKey, Network]:
        """The finished networks of the iteration that is under way.

        Raises:
            ModelError: the weights of one are damaged, or do not fit the settings.
        """
        networks = {}
        for (member, attempt), path in self.files.networks(len(self.records)).items():
            model = build_network(self.config.of_iteration(len(self.records)), self.data.width, len(self.data.classes))
            stated = _load_weights(path, model)
            key = NetworkKey(member, attempt)
            with _reading(path):
                networks[key] = Network(key, model.to(device).eval(), json.loads(stated.get("record", "")))
        return networks

    def add_iteration(
        self, record: Mapping[str, Any], model: nn.Module, detections: Mapping[str, Detections] | None
    ) -> None:
        """Write the files of a finished iteration, its record last."""
        if not parallel.rank():
            self._flush_epochs()
            iteration = len(self.records)
            make_folder(self.files.iteration(iteration), parents=False)
            _write_weights(self.files.weights(iteration), model, _stated(iteration))
            if detections is not None:
                write_detections(self.files.detections(iteration), detections)
        self.records.append(dict(record))
        self._write(self.files.records, json.dumps(self.records, indent=1) + "\n")
        self._forget_checkpoint()
        self._remove_networks(len(self.records) - 1)

    def model(self, iteration: int) -> BaseModel:
        """The model of a finished iteration, on the CPU, in evaluation mode.

        Raises:
            ModelError: its weights are damaged, or do not fit the settings.
        """
        return _load_model(self.files.weights(iteration), self.config.of_iteration(iteration), self.data)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """A record an epoch, in the order of training."""
        return read_epochs(self.folder)

    def detections(self, iteration: int) -> dict[str, Detections] | None:
        """Of a finished iteration, in the validation videos; None where their fps is not known.

        Raises:
            DetectionError: their file is damaged.
        """
        path = self.files.detections(iteration)
        return read_detections(path) if path.exists() else None

    def _flush_epochs(self) -> None:
        """Their lines are on the disk before anything that they are needed for."""
        if self.files.metrics.exists():
            with writing(self.files.metrics), self.files.metrics.open("a") as file:
                os.fsync(file.fileno())

    def _forget_checkpoint(self) -> None:
        self.checkpoint = None
        if not parallel.rank():
            self.files.checkpoint.unlink(missing_ok=True)

    def _remove_networks(self, iteration: int) -> None:
        """Those of a finished iteration: its own file has their weights."""
        if not parallel.rank():
            for path in self.files.networks(iteration).values():
                path.unlink(missing_ok=True)

    def _is_kept(self, line: Mapping[str, Any], finished: Collection[tuple[int, int]]) -> bool:
        """Whether the epoch of a line of metrics.jsonl need not be trained again."""
        if line["iteration"] != len(self.records):
            return bool(line["iteration"] < len(self.records))
        network = NetworkKey(line.get("member", 0), line.get("attempt", 0))
        checkpoint = self.checkpoint
        return network in finished or (
            checkpoint is not None and network == checkpoint.network and line["epoch"] < checkpoint.epochs
        )

    def _read_checkpoint(self, finished: Collection[tuple[int, int]]) -> Checkpoint | None:
        if not self.files.checkpoint.exists():
            return None
        tensors, stated = _read_tensors(self.files.checkpoint)
        # A kill before the removal of the checkpoint leaves one of a finished iteration, or of a finished network.
        if stated.get("iteration") != str(len(self.records)):
            return None
        checkpoint = Checkpoint(tensors, str(stated.get("numbers", "")))
        try:
            checkpoint.epochs  # noqa: B018
            network = checkpoint.network
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self.files.checkpoint}: holds no state of an iteration; {_CURE_CHECKPOINT}") from error
        return None if network in finished else checkpoint

    def _write(self, path: Path, text: str) -> None:
        if not parallel.rank():
            with atomic_write(path) as handle:
                handle.write(text)


def load_iteration(folder: Path, iteration: int) -> LoadedIteration:
    """Read one trained iteration of a run.

    Raises:
        ModelError: not a run, no such iteration (the message says which there are), or damaged weights.
        ConfigError: its base model is a file that the user has not named (`own_file`).
    """
    files = RunFolder(folder)
    if not files.is_run:
        raise ModelError(f"{folder}: not a run of refineloc-train: it has no {files.settings.name}")
    config, data = _read_settings(files.settings)
    records = read_records(folder)
    if not 0 <= iteration < len(records):
        finished = f"0 to {len(records) - 1}" if records else "none"
        raise ModelError(f"{folder}: has no finished iteration {iteration}; finished: {finished}")
    model = _load_model(files.weights(iteration), config.of_iteration(iteration), data)
    return LoadedIteration(model, config, data, iteration, records[iteration])


def _load_model(weights: Path, config: Config, data: DataRecord) -> BaseModel:
    """On the CPU, in evaluation mode."""
    model = build_models(config, data.width, len(data.classes))
    _load_weights(weights, model)
    return model.eval()


def _load_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Put the weights of a file into a model; gives what else the file states."""
    tensors, stated = _read_tensors(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit the run's settings: {reason}") from error
    return stated


def _write_weights(path: Path, model: nn.Module, stated: dict[str, str]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path, "wb") as handle:
        handle.write(save(tensors, metadata=stated))


def _read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            stated = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: weights cannot be read: {error}") from error
    if not isinstance(stated, dict) or stated.get("format") != _FORMAT:
        raise ModelError(f"{path}: not weights of refineloc-train")
    return tensors, stated


def _stated(iteration: int, **further: str) -> dict[str, str]:
    """The metadata of a file: one key, so that equal contents are equal files."""
    return {_KEY: json.dumps({"format": _FORMAT, "iteration": str(iteration)} | further)}


def _document(config: Config, data: DataRecord) -> dict[str, Any]:
    """What config.toml holds."""
    return config.document() | {"data": asdict(data)}


def _read_settings(path: Path) -> tuple[Config, DataRecord]:
    with _reading(path):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    if isinstance(model := document.get("model"), dict) and is_own(model.get("base")):
        own_file(model["base"], "base")
    try:
        data = document.pop("data")
        return validated(document), DataRecord(**{**data, "classes": tuple(data["classes"])})
    except (KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path}: not the settings of a run: {error}") from error


def _refuse_others(folder: Path, config: Config, data: DataRecord) -> None:
    """Refuse other settings and data, except for what changes no number: a run can be made longer, also by students."""
    own, finished = RunFolder(folder), len(read_records(folder))
    old_config, old_data = _read_settings(own.settings)
    old, new = _flat(_document(old_config, old_data)), _flat(_document(config, data))
    begun = finished if own.checkpoint.exists() or own.networks(finished) else finished - 1
    without_student = not (old_config.is_student(begun) or config.is_student(begun))
    if config.pseudo.generator != "distribution-aware":
        old["pseudo.foreground_share"] = new["pseudo.foreground_share"]  # the share of no generator in use
    for key in ("model.base", "pseudo.generator"):
        if same_file(old[key], new[key]):
            old[key] = new[key]  # it may lie elsewhere
        elif is_own(old[key]) and is_own(new[key]):
            own_file(old[key], "base" if key == "model.base" else "generator")  # says that its contents have changed
    # Digests come last: other classes or another width say more.
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key.endswith("_digest"), key)):
        if key in _FREE or old.get(key) == new.get(key) or (without_student and key.startswith("student.")):
            continue
        what = f"settings: {key} was {old.get(key)!r}, now {new.get(key)!r}"
        if key.endswith("_digest"):
            split = key.removesuffix("_digest")
            files = f"{new[f'{split}_features']} and {new[f'{split}_labels']}"
            what = f"data: {files} had other videos, lengths or labels then"
        raise ConfigError(
            f"{folder}: was begun with other {what}; resume with the same, or begin another run", parameter="folder"
        )


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in document.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into a ModelError that names it."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; {_CURE}") from error


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The finished iterations of a run, by number; none where it has not begun.

    Raises:
        ModelError: iterations.json is damaged.
    """
    path = RunFolder(folder).records
    if not path.exists():
        return []
    with _reading(path):
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    needed = {"validation_loss", "best_epoch"}
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and record.get("iteration") == index and needed <= record.keys()
        for index, record in enumerate(records)
    ):
        raise ModelError(
            f"{path}: expected the records of iterations 0, 1, ... with validation_loss, best_epoch; {_CURE}"
        )
    return records


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run, in the order in which they were trained; none where it has not begun.

    A last line without an end is left out: a killed process may have written a part of it.

    Raises:
        ModelError: metrics.jsonl is damaged.
    """
    path = RunFolder(folder).metrics
    if not path.exists():
        return []
    with _reading(path):
        whole_lines, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        lines = [json.loads(line) for line in whole_lines.splitlines()]
    for line in lines:
        if not isinstance(line, dict) or not all(type(line.get(name)) is int for name in ("iteration", "epoch")):
            raise ModelError(f"{path}: expected lines with an iteration and an epoch, got {line!r}; {_CURE}")
    return lines


def count_epochs(folder: Path) -> int:
    """How many epochs a run has, also while another process trains it."""
    path = RunFolder(folder).metrics
    return path.read_bytes().count(b"\n") if path.exists() else 0


def copy_first_iteration(source: Path, folder: Path) -> None:
    """Begin a run with the finished iteration 0 of another run; one that has begun is left as it is.

    The record is copied last, as it is written last.

    Raises:
        OutputError: the folder cannot be written.
    """
    if read_records(folder):
        return
    make_folder(folder, parents=False)
    old, new = RunFolder(source), RunFolder(folder)
    make_folder(new.iteration(0), parents=False)
    _copy(old.weights(0), new.weights(0))
    if old.detections(0).exists():  # not where fps is not known
        _copy(old.detections(0), new.detections(0))
    _copy(old.metrics, new.metrics)
    _copy(old.records, new.records)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target, "wb") as handle:
        handle.write(source.read_bytes())


def best_iteration(records: Sequence[Mapping[str, Any]], by: str) -> int:
    """The index of the best of some finished iterations, the first of equals.

    By "mAP" the highest average; by "loss" the lowest validation loss of those after iteration 0, whose loss has no
    pseudo loss in it and would always be the lowest.
    """
    if by == "mAP":
        return int(np.argmax([record.get("average_mAP", 0.0) for record in records]))
    first = 1 if len(records) > 1 else 0
    return first + int(np.argmin([record["validation_loss"] for record in records[first:]]))
