"""A fully connected layer whose products run at the processor's full rate.

torch multiplies float32 matrices with Intel's MKL, which takes its AVX2 kernels on AMD processors
(`mkl_blas_def_sgemm_kernel_0_zen`). There our layer calls oneDNN, which torch brings too and which goes by what the
processor can do, not by who made it. On Intel's own processors MKL is the faster one. docs/performance.md has the rates
of both, and the script that measures them on another machine.
"""

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Linear"]


def _by_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "GenuineIntel" in platform.processor()


def _onednn() -> bool:
    # The operator is internal to torch (its compiler emits it); without it, nn.Linear's way.
    known = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and torch.backends.cpu.get_cpu_capability() == "AVX512" and not _by_intel()


_ONEDNN = _onednn()


class Linear(nn.Linear):
    """`nn.Linear`: same parameters, state dict and ONNX node; float32 on AMD processors with AVX-512 by oneDNN."""

    def forward(self, values: Tensor) -> Tensor:
        """`values` [S, in] -> [S, out]."""
        # While the exporter traces, nothing may look at the number of snippets: the graph would hold it as a constant.
        ours = _ONEDNN and not torch.compiler.is_compiling() and values.device.type == "cpu"
        if ours and values.dtype == torch.float32 and len(values) > 0 and not torch.is_autocast_enabled("cpu"):
            result: Tensor = _Product.apply(values, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return result
        return F.linear(values, self.weight, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _multiply(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        values, weight = ctx.saved_tensors
        (gradient,) = gradients
        # The features of the first layer need no gradient: a third of its work.
        of_values = _multiply(gradient, weight.t(), None) if ctx.needs_input_grad[0] else None
        of_bias = gradient.sum(dim=0) if ctx.needs_input_grad[2] else None  # a layer may have none
        return of_values, _multiply(gradient.t(), values.t(), None), of_bias


def _multiply(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`values` [S, in], `weight` [out, in] -> [S, out]."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return result
