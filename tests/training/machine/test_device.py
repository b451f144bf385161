"""Devices of several processes, and memory under the limits of containers; the GPUs are pretended."""

from pathlib import Path
from typing import Any

import pytest
import torch

from refineloc.runtime.errors import ConfigError
from refineloc.training.machine import parallel
from refineloc.training.machine.device import _free_in_groups, choose_device, feature_budget


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two GPUs and two processes, of which this is the second; gives what was made the current device."""
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return current


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_a_gpu_of_its_own(name: str, two_gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    device = choose_device(name)
    assert device == torch.device("cuda:1")
    assert two_gpus == [device]
    joined: list[Any] = []
    monkeypatch.setattr(parallel.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(parallel.atexit, "register", lambda leave: None)
    monkeypatch.setattr(
        parallel.dist, "init_process_group", lambda backend, device_id: joined.append((backend, device_id))
    )
    parallel.join(device)
    assert joined == [("cpu:gloo,cuda:nccl", device)]


def test_gpus_that_do_not_suffice_are_refused(two_gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="device cuda:0: one GPU for 2 processes"):
        choose_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes and 2 GPUs"):
        choose_device("auto")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "xpu", "nonsense", "", "cpux"])
def test_other_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_the_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refineloc.training.machine.device.free_memory", lambda: 800)
    assert (feature_budget(None), feature_budget(1.0)) == (400, 2**30)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (feature_budget(None), feature_budget(1.0)) == (100, 2**28)


def test_the_limits_of_control_groups_count(tmp_path: Path) -> None:
    """The job has no limit, the container around it has 1,000: 300 are used, 50 of them by files that give way."""
    root = tmp_path / "cgroup"
    inner = root / "container" / "job"
    inner.mkdir(parents=True)
    for folder, limit in ((inner, "max"), (inner.parent, "1000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("300\n")
        (folder / "memory.stat").write_text("anon 250\ninactive_file 50\n")
    (tmp_path / "self").write_text("0::/container/job\n")
    assert _free_in_groups(root, tmp_path / "self") == [750]
    assert _free_in_groups(root, tmp_path / "absent") == []
    (tmp_path / "self").write_text("0::/\n")
    assert _free_in_groups(root, tmp_path / "self") == []
