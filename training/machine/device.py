"""What this machine has for a training process: its device, and memory for features."""

import contextlib
import os
from pathlib import Path

import torch

from refineloc.runtime.errors import ConfigError, first_line

__all__ = ["choose_device", "feature_budget", "room_on"]


def choose_device(name: str) -> torch.device:
    """A device by its name; of several processes on one machine (torchrun) each has a GPU of its own.

    Args:
        name: auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises:
        ConfigError: another kind of device, or one that cannot be used here.
    """
    try:
        device = torch.device({"auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(name, name))
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name}: expected auto, cpu, cuda or cuda:N", parameter="device")
    if device.type == "cpu":
        return torch.device("cpu")
    rank, processes = int(os.environ.get("LOCAL_RANK", "0")), _local_processes()
    if processes > 1 and device.index is not None:
        raise ConfigError(
            f"device {name}: one GPU for {processes} processes; cuda gives each its own", parameter="device"
        )
    if processes > 1 and rank >= torch.cuda.device_count() > 0:
        raise ConfigError(
            f"device {name}: {processes} processes and {torch.cuda.device_count()} GPUs on this machine; start one "
            "process a GPU, or take cpu",
            parameter="device",
        )
    device = torch.device("cuda", device.index if device.index is not None else rank if processes > 1 else 0)
    try:
        torch.zeros(1, device=device)
        torch.cuda.set_device(device)  # before NCCL, which takes the current one
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name}: cannot be used here: {first_line(error)}", parameter="device") from error
    return device


def _local_processes() -> int:
    """Processes of this run on this machine, as torchrun states them."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)


def feature_budget(memory_gib: float | None) -> int:
    """Bytes that this process may take for features: its share of what is granted, or of half of what is free."""
    total = int(memory_gib * 2**30) if memory_gib is not None else free_memory() // 2
    return total // _local_processes()


def free_memory() -> int:
    """Bytes that programs can still take, of the machine or of their control group (a container, a job)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_free_in_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _free_in_groups(root: Path, membership: Path) -> list[int]:
    """What is left of the limit of each control group (version 2) that this process is in."""
    try:
        name = next(line[3:] for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    folder, left = root / name.strip("/"), []
    for group in (folder, *folder.parents):
        # The root has no limit; inside a container, parents are not seen.
        with contextlib.suppress(OSError, ValueError):
            limit = (group / "memory.max").read_text().strip()
            used = int((group / "memory.current").read_text())
            # Pages of files that nobody uses at the moment give way.
            stats = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            if limit != "max":
                left.append(max(int(limit) - used + int(stats.get("inactive_file", 0)), 0))
        if group == root:
            break
    return left


def room_on(device: torch.device) -> int | None:
    """Bytes that features may take on a device; None on the CPU, where they are already."""
    # The rest is for batches and activations: at most a few GB of tens.
    return int(0.7 * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None
