"""Writes model.onnx beside this file: RefineLoc's network, 24 features and five classes, with varied scores.

The tests of the runtime use that file, so that they need no torch. Run this again where export writes another graph
(tests/export/test_committed_model.py tells):

    python tests/data/make_model.py
"""

from pathlib import Path

import onnx
import torch

from refineloc.export.graph import build_graph
from refineloc.training.models.bases.refineloc import RefineLoc

WIDTH, CLASSES = 24, 5


def make_graph(*, half: bool = False) -> onnx.ModelProto:
    """The graph without metadata, which tests/small_model.py adds; with float16 weights where `half`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RefineLoc(WIDTH, CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 6.0  # spreads the scores over (0, 1), so that thresholds keep some snippets and not others
    return build_graph(model, WIDTH, half=half)


if __name__ == "__main__":
    Path(__file__).with_name("model.onnx").write_bytes(make_graph().SerializeToString(deterministic=True))
