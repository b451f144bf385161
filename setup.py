"""Build of the Cython kernels, and the map from the repository's folders to import names.

The folders `_ext/`, `runtime/`, `evaluation/`, `training/` and `export/` are installed as `refineloc._ext`,
`refineloc.runtime`, `refineloc.evaluation` and so on; no folder installs under its bare name.

Environment:
    REFINELOC_BOUNDSCHECK=1   compile the kernels with bounds checks (make test-bounds); the shipped build has none.
    REFINELOC_SANITIZE=1      compile the kernels with AddressSanitizer (docs/explanation/memory-safety.md).
"""

import os
import re
import sys
import tomllib
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

FOLDERS = ("_ext", "runtime", "evaluation", "training", "export")

packages = ["refineloc"]
package_dir = {"refineloc": "refineloc"}
for folder in FOLDERS:
    packages.append(f"refineloc.{folder}")
    packages += [f"refineloc.{folder}.{name}" for name in find_packages(folder)]
    package_dir[f"refineloc.{folder}"] = folder

# README as PyPI shows it, where there are no files beside it.
source = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]
readme = Path("README.md").read_text(encoding="utf-8")
readme = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{source}/raw/main/", readme)  # pictures
readme = re.sub(r"(?<=\]\()(?!https?:|#)", f"{source}/blob/main/", readme)

checked = os.environ.get("REFINELOC_BOUNDSCHECK") == "1"
sanitized = os.environ.get("REFINELOC_SANITIZE") == "1"

# No -ffast-math or /fp:fast: they would break the order of sums and the checks for NaN that exactness rests on. GCC and
# clang on ARM fuse a product and a sum unless told not to, which would round differently there.
FLAGS = ["-O3", "-fno-math-errno", "-ffp-contract=off"]
MSVC_FLAGS = ["/O2", "/fp:precise"]


class BuildKernels(build_ext):
    """Builds with the flags of the compiler that setuptools has chosen; a release has no debug information."""

    def build_extensions(self) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        for extension in self.extensions:
            extension.extra_compile_args += MSVC_FLAGS if msvc else FLAGS
            if sanitized:
                extension.extra_compile_args += ["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]
                extension.extra_link_args += ["-fsanitize=address"]
            elif not msvc:
                extension.extra_compile_args += ["-g0"]  # Python's own flags have -g
                if sys.platform == "linux":
                    extension.extra_link_args += ["-Wl,-s"]
        super().build_extensions()


extensions = [Extension(f"refineloc._ext.{path.stem}", [str(path)]) for path in sorted(Path("_ext").glob("*.pyx"))]

setup(
    long_description=readme,
    long_description_content_type="text/markdown",
    packages=packages,
    package_dir=package_dir,
    package_data={
        "refineloc": ["py.typed"],
        "refineloc._ext": ["*.pyi", "*.pxi"],
        "refineloc.evaluation.report": ["*.html", "*.css", "*.js"],
    },
    exclude_package_data={"refineloc._ext": ["*.c", "*.pyx"]},
    cmdclass={"build_ext": BuildKernels},
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
