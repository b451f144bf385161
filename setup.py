"""Build of the Cython kernels, and the map from the repository's folders to import names.

The folders `_ext/`, `runtime/`, `evaluation/`, `training/` and `export/` are installed as `refineloc._ext`,
`refineloc.runtime`, `refineloc.evaluation` and so on; no folder installs under its bare name.

Environment:
    REFINELOC_BOUNDSCHECK=1   compile the kernels with bounds checks (make test-bounds); the shipped build has none.
    REFINELOC_SANITIZE=1      compile the kernels with AddressSanitizer (docs/memory-safety.md).
"""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

FOLDERS = ("_ext", "runtime", "evaluation", "training", "export")

packages = ["refineloc"]
package_dir = {"refineloc": "refineloc"}
for folder in FOLDERS:
    packages.append(f"refineloc.{folder}")
    packages += [f"refineloc.{folder}.{name}" for name in find_packages(folder)]
    package_dir[f"refineloc.{folder}"] = folder

checked = os.environ.get("REFINELOC_BOUNDSCHECK") == "1"
sanitized = os.environ.get("REFINELOC_SANITIZE") == "1"

compile_args: list[str] = []
link_args: list[str] = []
if sys.platform == "linux":
    # No -ffast-math: it would break the order of sums and the checks for NaN that exactness rests on.
    compile_args += ["-O3", "-fno-math-errno", "-ffp-contract=off", "-fopenmp"]
    link_args += ["-fopenmp"]
if sanitized:
    compile_args += ["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]
    link_args += ["-fsanitize=address"]

extensions = [
    Extension(
        f"refineloc._ext.{path.stem}",
        [str(path)],
        include_dirs=[numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for path in sorted(Path("_ext").glob("*.pyx"))
]

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "refineloc": ["py.typed"],
        "refineloc._ext": ["*.pyi", "*.pxi"],
        "refineloc.evaluation.report": ["*.html", "*.css", "*.js"],
    },
    exclude_package_data={"refineloc._ext": ["*.c", "*.pyx"]},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython-checked" if checked else "build/cython",
        compiler_directives={
            "language_level": "3",
            "boundscheck": checked,
            "wraparound": False,
            "initializedcheck": checked,
            "cdivision": True,
            "embedsignature": True,
            "show_performance_hints": not checked,  # each would say that the checks cost time
        },
    ),
)
