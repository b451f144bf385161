"""Convolutions of width 3 over the points of packed videos, and the norm, rectifier and dropout behind them.

What is traced, and what a GPU computes, gathers the neighbours of each point and multiplies. On a CPU, in float32, rows
of zeros lie between videos, so that oneDNN convolves a whole table as one row of pixels. There gradients are written
out, as those of torch take up to twice as long.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Table", "convolved", "has_blanks", "rectified", "with_filling"]

_WIDE = 2  # times as many inputs as outputs: from there on fewer values are moved after the product than before it
_COLUMNS, _PIXELS = 256, 2**14  # and values of an image, beyond which oneDNN gives the gradient of weights more slowly
_FEW = 20_480  # values, up to which torch does not convolve by oneDNN
_DRAWS = 2**16  # equally likely numbers, of which dropout draws one for each value


class Table(NamedTuple):
    """The rows in which points of packed videos lie: without others between them, or with blank rows around each video.

    Attributes:
        beside: without blank rows: of each point the numbers of the one before it, of itself, and of the one after it,
            of its own video and level, int64 [P, 3]; they count from 1 on, and 0 is none. Otherwise not used.
        rows, blank: with blank rows: those of the points, int64 [P], and the others, of which values are 0.
        size: and how many there are together; 0: there are no blank rows.
    """

    beside: Tensor
    rows: Tensor
    blank: Tensor
    size: int

    def spread(self, values: Tensor, lengths: Tensor) -> Tensor:
        """The values of snippets [S, K] in their rows; `lengths` are those of the videos, int64 [V]."""
        if not self.size:
            return values
        none, parts = values.new_zeros(self.size - len(values), values.shape[1]), []
        for place, part in enumerate(torch.split(values, lengths.tolist())):
            parts += [none[place : place + 1], part]
        return torch.cat([*parts, none[len(lengths) :]])

    def of_points(self, values: Tensor) -> Tensor:
        """The values of the points [P, K], of those of all rows."""
        return values.index_select(0, self.rows) if self.size else values

    def blanked(self, values: Tensor) -> Tensor:
        """Write zeros to the blank rows of these values, and give them back; they are taken to have no gradient."""
        with torch.no_grad():
            return values.index_fill_(0, self.blank, 0.0) if self.size else values


def has_blanks(values: Tensor) -> bool:
    """Whether points of such values get tables with blank rows: where torch itself computes, on a CPU, in float32."""
    return not torch.compiler.is_compiling() and values.device.type == "cpu" and values.dtype == torch.float32


def with_filling(rows: int) -> int:
    """So many rows and a few more. oneDNN prepares itself for each new size, which takes as long as a small product."""
    step = max(1 << max(rows.bit_length() - 5, 0), 64)
    return -(-rows // step) * step


def convolved(values: Tensor, table: Table, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of width 3 over the points of each video and level.

    Args:
        values: of the rows of a table, [R, K].
        table: of which rows are blank, or which points are beside each other.
        weight: [K', 3 K], of the point before, of the point itself, and of the one after.
        bias: [K'].

    Returns:
        [R, K']: weight · (before, own, after) + bias, with zeros in the place of a point that there is not. Blank rows
        have any values; no gradient may come from there.
    """
    if table.size:
        result: Tensor = _Convolution.apply(values, weight, bias, table.blank)  # type: ignore[no-untyped-call]
        return result
    inputs, outputs = values.shape[1], weight.shape[0]
    if inputs < _WIDE * outputs:
        beside = _with_none(values).index_select(0, table.beside.flatten())
        return F.linear(beside.reshape(-1, 3 * inputs), weight, bias)
    # One product with the three parts of the weights; then sums of its few columns.
    parts = weight.reshape(outputs, 3, inputs).transpose(0, 1).reshape(3 * outputs, inputs)
    none = torch.zeros_like(bias)
    products = F.linear(values, parts, torch.cat([none, bias, none]))
    thirds = _with_none(products).reshape(-1, outputs)
    before, own, after = (thirds.index_select(0, 3 * table.beside[:, part] + part) for part in range(3))
    return before + own + after


def rectified(values: Tensor, table: Table, norm: nn.LayerNorm, dropout: float) -> Tensor:
    """Norm, rectifier and dropout of all rows [R, K], of which the blank ones become 0."""
    if table.size:
        result: Tensor = _Rectified.apply(  # type: ignore[no-untyped-call]
            values, norm.weight, norm.bias, table.blank, norm.eps, dropout
        )
        return result
    result = F.relu(norm(values))
    return F.dropout(result, dropout) if dropout else result


def _with_none(values: Tensor) -> Tensor:
    """Values [P, K] behind a row of zeros, whose number is 0."""
    return torch.cat([values.new_zeros(1, values.shape[1]), values])


class _Convolution(torch.autograd.Function):
    """`convolved` of a table with blank rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, blank: Tensor) -> Tensor:
        ctx.save_for_backward(values, weight, blank)
        return _along_rows(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, blank = ctx.saved_tensors
        values, weight = values.to(gradient.dtype), weight.to(gradient.dtype)  # bfloat16 where forward had autocast
        of_values = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.reshape(len(weight), 3, -1).flip(1).permute(2, 1, 0).flatten(1)
            of_values = _along_rows(gradient, mirrored, None).index_fill_(0, blank, 0.0)
        return of_values, _weight_gradient(gradient, values, weight), gradient.sum(dim=0), None


def _along_rows(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Weight [K', 3 K] · (row before, row, row after) + bias, of rows [R, K] with zeros beyond both ends."""
    inputs, outputs = values.shape[1], len(weight)
    if values.numel() <= _FEW:
        padded = F.pad(values, (0, 0, 1, 1))
        return F.linear(torch.cat([padded[:-2], values, padded[2:]], dim=1), weight, bias)
    kernel = weight.reshape(outputs, 1, 3, inputs).permute(0, 3, 1, 2)
    image = values.reshape(1, 1, -1, inputs).permute(0, 3, 1, 2)
    return F.conv2d(image, kernel, bias, padding=(0, 1)).permute(0, 2, 3, 1).reshape(-1, outputs)


def _weight_gradient(gradient: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """The gradient of weights [K', 3 K] from that of results [R, K'] and from values [R, K]."""
    outputs, (rows, inputs) = len(weight), values.shape
    kernel = weight.reshape(outputs, 1, 3, inputs).permute(0, 3, 1, 2)
    result = values.new_empty(outputs, 3, inputs)
    # As of many short images, of a power of two of rows each, and then of the neighbours that two images have.
    most = _PIXELS // min(inputs, _COLUMNS)
    length = min(1 << most.bit_length() - 1, rows & -rows)
    settings: Any = ([1, 1], [0, 1], [1, 1], False, [0, 0], 1, [False, True, False])
    for begin in range(0, inputs, _COLUMNS):
        part = slice(begin, begin + _COLUMNS)
        images = (each.reshape(-1, 1, length, each.shape[1]) for each in (gradient, values[:, part]))
        of_results, of_pixels = (each.permute(0, 3, 1, 2) for each in images)
        of_kernel = torch.ops.aten.convolution_backward(of_results, of_pixels, kernel[:, part], None, *settings)[1]
        result[:, :, part] = of_kernel[:, :, 0].transpose(1, 2)
    first, last = slice(length, None, length), slice(length - 1, -1, length)
    result[:, 0] += gradient[first].t() @ values[last]
    result[:, 2] += gradient[last].t() @ values[first]
    return result.reshape(weight.shape)


class _Rectified(torch.autograd.Function):
    """`rectified` of a table with blank rows.

    Dropout's factor is in the norm's weights. So the gradient passes where a result is above 0, and no mask is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, gain: Tensor, shift: Tensor, blank: Tensor, epsilon: float, dropout: float
    ) -> Tensor:
        dropped = min(round(dropout * _DRAWS), _DRAWS - 1)
        ctx.factor = _DRAWS / (_DRAWS - dropped)
        gain, shift = gain * ctx.factor, shift * ctx.factor
        result, mean, scale = torch.native_layer_norm(values, gain.shape, gain, shift, epsilon)
        result.relu_()
        if dropped:  # four draws an integer of 64 bits: a Bernoulli draw takes four times as long as all of this
            draws = torch.empty(-(-result.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
            kept = draws.view(torch.int16)[: result.numel()] >= dropped - _DRAWS // 2
            result *= kept.reshape(result.shape)
        result.index_fill_(0, blank, 0.0)
        ctx.save_for_backward(values, gain, shift, mean, scale, result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, gain, shift, mean, scale, result = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        of_values, of_gain, of_shift = torch.ops.aten.native_layer_norm_backward(
            gradient, values, gain.shape, mean, scale, gain, shift, [True, True, True]
        )
        return of_values, of_gain * ctx.factor, of_shift * ctx.factor, None, None, None
