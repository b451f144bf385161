"""What `pip install` gives: the wheel and the sdist hold what they should, under the right names, and work."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTENSION = str(sysconfig.get_config_var("EXT_SUFFIX"))


def python(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check_modules(files: Iterable[str]) -> None:
    """All modules and data files of the package are there, under its one name."""
    names = set(files)
    assert {name.split("/")[0] for name in names} == {"refineloc"}
    for folder in ("_ext", "runtime", "evaluation", "training", "export"):
        for path in (ROOT / folder).rglob("*.py*"):
            if path.suffix in (".py", ".pyi"):
                assert f"refineloc/{path.relative_to(ROOT)}" in names
    assert "refineloc/py.typed" in names
    assert {f"refineloc/evaluation/report/page.{kind}" for kind in ("html", "css", "js")} <= names
    assert not [name for name in names if name.endswith((".c", ".pyx"))]


def test_the_build_takes_every_module_under_its_name(tmp_path: Path) -> None:
    """Without the kernels, which take a minute to compile."""
    python("-W", "ignore", "setup.py", "-q", "build_py", "--build-lib", str(tmp_path), cwd=ROOT)
    check_modules(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.long
def test_the_wheel_holds_every_module_under_its_name(built: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(built[1]).namelist()
    check_modules(name for name in names if ".dist-info/" not in name)
    for kernel in (ROOT / "_ext").glob("*.pyx"):
        assert any(name.startswith(f"refineloc/_ext/{kernel.stem}.") and name.endswith(EXTENSION) for name in names)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="asks for names in Linux's format of libraries")
def test_the_wheel_s_kernels_are_stripped_and_need_the_c_library_alone(built: tuple[Path, Path]) -> None:
    wheel = zipfile.ZipFile(built[1])
    kernels = [wheel.read(name) for name in wheel.namelist() if name.endswith(EXTENSION)]
    assert len(kernels) >= 4
    for kernel in kernels:
        assert b"\0.text\0" in kernel  # the names of sections can be seen
        assert b"\0.debug_info\0" not in kernel
        assert b"\0.symtab\0" not in kernel
        assert set(re.findall(rb"\0(lib[^\0/]*\.so[.\d]*)(?=\0)", kernel)) <= {b"libc.so.6", b"libm.so.6"}


def test_the_sdist_holds_what_it_is_built_from_and_no_build_products(tmp_path: Path) -> None:
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), ".", cwd=ROOT)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert names >= {"setup.py", "pyproject.toml", "LICENSE", "README.md", "runtime/detector.py"}
    for folder in ("_ext", "runtime", "evaluation", "training", "export", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".pyx", ".pxi", ".html", ".css", ".js", ".onnx"):
                assert str(path.relative_to(ROOT)) in names
    assert not [name for name in names if name.endswith((".c", ".so", ".pyd"))]


@pytest.mark.long
def test_the_installed_wheel_runs(built: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(built[1]), cwd=tmp_path)
    # -S -I would also hide the dependencies; the path order alone decides which refineloc is found.
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '') "
        "and 'editable' not in str(f)]\n"
        "import refineloc.runtime, refineloc._ext.segments as kernel\n"
        "from refineloc.evaluation import evaluate\nfrom refineloc.runtime import open_features\n"
        "print(refineloc.runtime.__file__, kernel.__file__)"
    )
    printed = python("-c", code, cwd=tmp_path)
    assert printed.count(str(target)) == 2


def test_console_scripts_answer() -> None:
    scripts = sorted((Path(sys.executable).parent).glob("refineloc-*"))
    assert {path.name for path in scripts} >= {
        "refineloc-convert",
        "refineloc-detect",
        "refineloc-doctor",
        "refineloc-eval",
        "refineloc-export",
        "refineloc-report",
        "refineloc-synth",
        "refineloc-train",
    }
    for path in scripts:
        done = subprocess.run([str(path), "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
