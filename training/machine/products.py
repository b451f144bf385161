"""How float32 products are computed: on a CPU by MKL, or oneDNN where MKL is slow; on a GPU in float32 or TF32."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["for_products", "products_in"]

_WIDE = 256  # narrower products are as fast in MKL, as a call of oneDNN costs more


def for_products(features: Tensor) -> Tensor:
    """Features [S, D] as the layers take them: in oneDNN's layout where its products are faster, else as they are.

    torch's layers and ReLUs compute a tensor in that layout by oneDNN. `to_dense()` brings their outputs back.
    """
    if torch.compiler.is_compiling() or not _mkl_is_slow():  # the exporter's sizes are symbols, not to be compared
        return features
    plain = features.device.type == "cpu" and features.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if not plain or not len(features) or features.shape[1] < _WIDE:
        return features
    return features.to_mkldnn()


@functools.cache
def _mkl_is_slow() -> bool:
    """On AMD processors from Zen 5 on, MKL runs its AVX2 kernels at less than half of oneDNN's rate.

    On the others that were measured MKL is as fast or faster (docs/explanation/performance.md).
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system than Linux
        return False
    facts = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    family = facts.get("cpu family", "")
    return facts.get("vendor_id") == "AuthenticAMD" and family.isdecimal() and int(family) >= 26


@contextlib.contextmanager
def products_in(precision: str) -> Iterator[None]:
    """TF32 for the products of CUDA GPUs where `precision` is "tf32"; until the block ends."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
