"""What `pip install` gives: the wheel and the sdist hold what they should, under the right names, and work."""

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "evaluation/report"
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
    page = (path.name for path in REPORT.iterdir() if path.suffix in (".html", ".css", ".js"))
    assert {f"refineloc/evaluation/report/{name}" for name in page} <= names
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


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> tarfile.TarFile:
    folder = tmp_path_factory.mktemp("sdist")
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), ".", cwd=ROOT)
    (path,) = folder.glob("*.tar.gz")
    return tarfile.open(path)


def test_the_sdist_holds_what_the_repository_has_and_no_build_products(sdist: tarfile.TarFile) -> None:
    names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    assert not [name for name in names if name.endswith((".c", ".so", ".pyd")) or "__pycache__" in name]
    assert names >= {"setup.py", "runtime/detector.py", "examples/demo.py", "benchmarks/nms.py", ".ci/run", "Makefile"}
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is nothing to compare with")
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert set(tracked.split("\n")[:-1]) - names <= {".gitignore"}


def test_what_pypi_shows_has_no_link_to_a_file_beside_it(sdist: tarfile.TarFile) -> None:
    (name,) = (name for name in sdist.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name))
    metadata = email.message_from_bytes(sdist.extractfile(name).read())  # type: ignore[union-attr]
    assert {"Source", "Documentation", "Changelog", "Issues"} == {
        line.split(",")[0] for line in metadata.get_all("Project-URL", [])
    }
    shown = str(metadata.get_payload())
    links = re.findall(r"\]\(([^)]*)\)", shown)
    assert len(links) > 10
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", shown)
    for link in [picture, *links]:
        if path := re.fullmatch(r"https://[^/]+/[^/]+/refineloc/(?:blob|raw)/main/([^#]*)(?:#.*)?", link):
            assert (ROOT / path[1]).exists(), link


# The demo's programs on few data, and one iteration; the test command on what needs the kernels.
DEMO = """
import sys; sys.path.insert(0, "examples")
import demo
fewer = {
    "demo/data": "demo/data --videos 30 --classes 3 --dim 16",
    "--iterations 4": "--iterations 2 --epochs 5",
    "--iter 3": "--iter 1",
}
for words, others in fewer.items():
    assert words in demo.PROGRAMS
    demo.PROGRAMS = demo.PROGRAMS.replace(words, others, 1)
demo.main()
"""


@pytest.mark.long
def test_the_two_commands_run_from_an_unpacked_sdist(sdist: tarfile.TarFile, tmp_path: Path) -> None:
    """As `make demo` and `make test` do after `make setup`, with the packages that are installed already."""
    sdist.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    place = tree / ".venv"
    venv.create(place)
    run = place / "bin" / "python"
    (site,) = place.glob("lib/*/site-packages")
    (site / "packages.pth").write_text("\n".join(dict.fromkeys(path for path in sys.path if "site-packages" in path)))

    def command(*arguments: object) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, cwd=tree, env=environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    pip = [run, "-W", "ignore", "-m", "pip", "--disable-pip-version-check"]
    command(*pip, "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".")
    command(run, "setup.py", "-q", "build_ext", "--inplace")
    assert str(tree) in command(run, "-c", "import refineloc._ext.nms as kernel; print(kernel.__file__)")
    assert "One video's time line" in command(run, "-c", DEMO)
    assert (tree / "demo" / "detections.json").stat().st_size
    shown = command(run, "-m", "pytest", "-p", "no:cacheprovider", "tests/ext")
    assert "passed" in shown


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


def test_wheels_are_built_with_tests_that_are_there() -> None:
    """The workflow's command, which no CI here runs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    paths = re.findall(r"\{project\}/(\S+)", settings["test-command"])
    assert len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_console_scripts_answer() -> None:
    """Also where stdout has no letter but ASCII's: help speaks of α and β."""
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
        "refineloc-tune",
    }
    ascii_alone = {"PYTHONIOENCODING": "ascii"}
    for path in scripts:
        done = subprocess.run([str(path), "--help"], capture_output=True, text=True, env=os.environ | ascii_alone)
        assert done.returncode == 0, done.stderr
        assert f"Usage: {path.name}" in done.stdout
