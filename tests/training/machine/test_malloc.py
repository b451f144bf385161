"""Memory that is freed stays with the process: no new page faults for the next batch."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, torch
from refineloc.training.machine.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):  # the first few still find no place: alignment leaves crumbs between them
    torch.ones(1 << 24)
before = faults()
for _ in range(20):
    torch.ones(1 << 24)  # 64 MB, freed at once
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_the_next_batch_finds_the_memory_of_the_last() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "not")
    )
    assert kept * 10 < given_back
