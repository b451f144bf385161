"""Kernels built elsewhere, with bounds checks or a sanitizer, in place of the usual ones (memory-safety.md)."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_kernels() -> list[ModuleType]:
    """All modules of kernels; where REFINELOC_EXT_DIR names a folder, those in it, or the program ends."""
    import refineloc._ext

    folder = os.environ.get("REFINELOC_EXT_DIR")
    if folder is not None:
        refineloc._ext.__path__.insert(0, folder)
    names = sorted(path.stem for path in (ROOT / "_ext").glob("*.pyx"))
    modules = [importlib.import_module(f"refineloc._ext.{name}") for name in names]
    for module in modules:
        if folder is not None and Path(str(module.__file__)).parent != Path(folder):
            sys.exit(f"REFINELOC_EXT_DIR: {module.__file__} was loaded instead")
    return modules
