"""Calls every kernel with arguments that fit, and with some of them spoilt: any type, shape, memory layout or value.

    python fuzz_kernels.py CASES SEED LAST

The file LAST holds the arguments of the last call, pickled: after a crash, what crashed. Prints, as JSON, how many
calls of each kernel were taken and refused, and what was raised that is no plain refusal.

What fits is read from the kernels themselves, so that new ones and new arguments are tried as well: types from the
stubs, sizes and words from the docstrings ("float32 [S, N]", "which sum to S", "contrast"). Sizes of one name agree.
"""

import ast
import inspect
import json
import pickle
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).parents[1]))

from kernels_elsewhere import ROOT, load_kernels

Generator = np.random.Generator
REFUSALS = (TypeError, ValueError, OverflowError)
DTYPES = (
    *np.typecodes["AllInteger"],
    *np.typecodes["AllFloat"],
    ">i8",
    ">f4",
    ">f8",
    "?",
    "S3",
    "U3",
    "O",
    "M8[s]",
    "V4",
)
OTHERS: tuple[Any, ...] = (
    True,
    None,
    "1",
    "x",
    b"1",
    1j,
    [],
    {},
    object(),
    np.zeros(0),
    np.ones((2, 2)),
    np.array(0.5),
)
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 5e-324, 1e308, -1e308, np.inf, -np.inf, np.nan)
EXTREMES = (-(2**63), -(2**62), -2, -1, 0, 1, 2**31, 2**62, 1e308, np.nan, np.inf, -np.inf)
LARGE = [sign * 2**power + more for sign in (1, -1) for power in (7, 31, 32, 53, 62, 63, 64, 70) for more in (-1, 0, 1)]


class Kernel:
    """A kernel, and what its stub and docstring say of its arguments."""

    def __init__(self, function: Callable[..., Any], docs: str, annotations: dict[str, str]) -> None:
        self.function = function
        self.name = function.__name__
        self.annotations = annotations
        self.words: dict[str, list[str]] = {}
        self.dims: dict[str, list[str]] = {}
        self.sums: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        for names, text in re.findall(r"^ {8}([\w, ]+): (.*(?:\n {9,}.*)*)", docs, re.MULTILINE):
            for name in names.split(", "):
                self.words[name] = re.findall(r'"([\w-]+)"', text)
                if found := re.search(r"\d \[([^\]]+)\]", text):
                    self.dims[name] = found[1].split(", ")
                    if total := re.search(r"sum to (\w+)", text):
                        self.sums[name] = total[1]
                    if owners := re.search(r"0 to (\w+) - 1, not falling", text):
                        self.owners[name] = owners[1]

    def arguments(self, rng: Generator) -> dict[str, Any]:
        """Arguments that fit, mostly."""
        symbols = {dim.split(" ")[0] for dims in self.dims.values() for dim in dims}
        largest = 7 if rng.random() < 0.9 else 200
        sizes = {symbol: int(symbol) if symbol.isdigit() else int(rng.integers(largest)) for symbol in sorted(symbols)}
        values: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if parameter.default is not parameter.empty and rng.random() < 0.5:
                continue
            values[name] = self._value(name, sizes, values, rng)
        return values

    def _value(self, name: str, sizes: dict[str, int], earlier: dict[str, Any], rng: Generator) -> Any:
        kind = self.annotations[name]
        if "NDArray" in kind:
            dtype = np.dtype(re.search(r"np\.(\w+)", kind[kind.index("NDArray") :])[1])  # type: ignore[index]
            dims = self.dims.get(name, ["n"])
            shape = [sizes.get(dim.split(" ")[0], 1) + (1 if dim.endswith("+ 1") else 0) for dim in dims]
            if dtype.kind == "i":
                return self._integers(name, dims, shape, sizes, rng).astype(dtype)
            numbers = rng.random(shape) if rng.random() < 0.5 else rng.integers(0, 5, shape) / 4
            if name.endswith("end"):
                before = earlier.get(name.removesuffix("end") + "start", 0)
                numbers = numbers + before if np.shape(before) == np.shape(numbers) else numbers
            return numbers.astype(dtype)
        if "Sequence" in kind:
            return rng.random(rng.integers(1, 20)).round(2).tolist()
        if "Literal" in kind or "str" in kind:
            return str(rng.choice(self.words[name]))
        if "float" in kind:
            return float(rng.choice([0.0, 0.1, 0.5, 0.9, 1.0]))
        return bool(rng.integers(2)) if "bool" in kind else int(rng.integers(1, 5))

    def _integers(
        self, name: str, dims: list[str], shape: list[int], sizes: dict[str, int], rng: Generator
    ) -> npt.NDArray[Any]:
        """Lengths that sum to a size, owners in their order, rising bounds up to a size, or indices below one."""
        if name in self.sums and shape[0]:
            return rng.multinomial(sizes.get(self.sums[name], 1), np.ones(shape[0]) / shape[0])
        if name in self.owners:
            return np.sort(rng.integers(0, max(sizes[self.owners[name]], 1), shape))
        limit = int(rng.choice(list(sizes.values())))
        if dims[0].endswith("+ 1"):
            return np.sort(np.concatenate([[0, limit], rng.integers(0, limit + 1, max(shape[0] - 2, 0))])[: shape[0]])
        return rng.integers(-1, max(limit, 1), shape)


def spoilt(value: Any, rng: Generator) -> Any:
    """Another value in its place."""
    kind = rng.integers(9)
    if kind == 0 or not isinstance(value, np.ndarray) or not value.ndim:
        others = (*OTHERS, *NUMBERS, *LARGE)
        return others[rng.integers(len(others))]
    if kind == 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return value.astype(DTYPES[rng.integers(len(DTYPES))])
            except (*REFUSALS, RuntimeError):  # of a date as a short text
                return value.tolist()
    if kind == 2:
        shape = [int(size) for size in rng.integers(0, 4, rng.integers(0, 4))]
        return np.resize(value, shape).astype(value.dtype)
    if kind == 3:  # one more, or one less, of everything along an axis
        return np.repeat(value, 2, 0)[1:] if rng.integers(2) else value[:-1]
    if kind == 4:  # the same values in another layout
        wide = np.empty((*value.shape, 2), value.dtype)
        wide[..., 0] = value
        return [wide[..., 0], value[::-1], np.asfortranarray(value), value.T][rng.integers(4)]
    if kind == 5 and not value.dtype.hasobject:
        moved = np.empty(value.nbytes + 1, np.uint8)[1:].view(value.dtype).reshape(value.shape)
        moved[...] = value
        return moved
    if kind == 6:
        return value.tolist()
    if value.dtype.kind not in "iuf" or not value.size:
        return None
    changed = value.astype("f8") if rng.integers(4) == 0 else value.copy()
    for _ in range(rng.integers(1, 4)):
        with np.errstate(all="ignore"):
            number = np.array(EXTREMES[rng.integers(len(EXTREMES))]).astype(changed.dtype)
        changed.reshape(-1)[rng.integers(changed.size)] = number
    return changed


def kernels() -> list[Kernel]:
    """All public functions of all modules."""
    listed = []
    for module in load_kernels():
        stub = ast.parse((ROOT / "_ext" / f"{module.__name__.rpartition('.')[2]}.pyi").read_text())
        annotations = {
            node.name: {
                argument.arg: ast.unparse(argument.annotation)
                for argument in (*node.args.args, *node.args.kwonlyargs)
                if argument.annotation is not None
            }
            for node in stub.body
            if isinstance(node, ast.FunctionDef)
        }
        for name in annotations:
            function = getattr(module, name)
            docs = inspect.getdoc(function) or ""
            # "as `hard_nms`": what that says too.
            others = "\n".join(
                inspect.getdoc(getattr(module, other)) or "" for other in re.findall(r"as `(\w+)`", docs)
            )
            body = re.sub(r"^(?=.)", "    ", f"{others}\n{docs}", flags=re.MULTILINE)
            listed.append(Kernel(function, body, annotations[name]))
    return listed


def main() -> None:
    """Try the cases and print what became of them."""
    cases, seed, last = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    odd: list[str] = []
    all_kernels = kernels()
    warnings.simplefilter("ignore")
    # What a build with bounds checks finds in a loop without the GIL.
    sys.unraisablehook = lambda unraisable: odd.append(f"{unraisable.object!r}: {unraisable.exc_value!r}")
    with last.open("wb") as file:
        for case in range(cases):
            kernel = all_kernels[case % len(all_kernels)]
            arguments = kernel.arguments(rng)
            for _ in range(rng.integers(3)):
                if arguments:
                    name = str(rng.choice(list(arguments)))
                    arguments[name] = spoilt(arguments[name], rng)
            try:
                content = pickle.dumps((kernel.name, arguments))
            except Exception:
                content = pickle.dumps((kernel.name, repr(arguments)))
            file.seek(0)
            file.write(content)
            file.flush()
            try:
                kernel.function(**arguments)
                counts[f"{kernel.name} took"] += 1
            except REFUSALS:
                counts[f"{kernel.name} refused"] += 1
            except Exception as error:
                odd.append(f"{kernel.name}: {error!r}: {arguments!r}"[:2000])
    print(json.dumps({"counts": counts, "odd": odd[:5]}))


if __name__ == "__main__":
    main()
