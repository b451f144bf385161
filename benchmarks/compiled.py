"""Compiles a peer that is written in Cython with the flags of our kernels, outside the source folders."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent


def load(name: str) -> ModuleType:
    """Compile benchmarks/NAME.pyx into build/benchmarks (only if it has changed), and import it."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    folder = HERE.parent / "build" / "benchmarks"
    flags = ["-O3", "-fno-math-errno", "-ffp-contract=off"] if sys.platform != "win32" else []
    extension = Extension(name, [str(HERE / f"{name}.pyx")], extra_compile_args=flags)
    build = Distribution({"ext_modules": cythonize([extension], build_dir=str(folder), quiet=True)}).get_command_obj(
        "build_ext"
    )
    build.build_lib, build.build_temp = str(folder), str(folder / "objects")
    build.ensure_finalized()
    build.run()
    spec = importlib.util.spec_from_file_location(name, build.get_ext_fullpath(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
