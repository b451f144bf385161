"""Fixtures that every part of the test suite shares."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before NumPy and torch start their threads: the tests run in several processes at once, on few cores, and threads that
# wait for each other there are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import refineloc  # noqa: F401, I001 (before ONNX Runtime, which tests import themselves: its telemetry is off then)

import hypothesis
import numpy as np
import pytest
from kernels_elsewhere import load_kernels
from small_model import write_model

if "REFINELOC_EXT_DIR" in os.environ:
    load_kernels()

ROOT = Path(__file__).resolve().parents[1]
# The same examples on every run, however slow the machine; REFINELOC_HYPOTHESIS=random looks for new ones.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("REFINELOC_HYPOTHESIS", "same"))

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files that others published; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real files are not here: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small model with clear and varied scores; keyword arguments change its metadata."""
    return lambda **changes: write_model(tmp_path_factory.mktemp("model") / "model.onnx", **changes)


@pytest.fixture(scope="session")
def model_path(make_model: Callable[..., Path]) -> Path:
    """A model of five classes on 24 features."""
    return make_model()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this tree, and the wheel that it builds (so an sdist that lacks a file cannot pass)."""
    # Built once for all processes of the test run, whose folders are beside each other.
    import fcntl  # not on Windows, where the tests of what the runtime needs run as well

    base = tmp_path_factory.getbasetemp()
    beside = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = beside / "dist"
    with (beside / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(out.glob("*.whl")):
            # Not in the source tree, where the build would leave files.
            _python("-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT)
            (sdist,) = out.glob("*.tar.gz")
            _python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, sdist)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def _python(*arguments: object) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded."""
    return np.random.default_rng(7)


@pytest.fixture
def call_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program's `main` in this process, in `tmp_path`: starting Python for each case takes most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", None)  # the program sets its own; put back afterwards

    def call(main: Callable[[], object], *arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window; tests are skipped where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(service=webdriver.ChromeService(driver), options=options)
    yield opened
    opened.quit()
