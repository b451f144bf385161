"""tests/data/model.onnx, which the tests of the runtime use in the place of an exported file."""

import numpy as np
import onnx
import onnxruntime
from data.make_model import make_graph
from small_model import GRAPH, WIDTH


def test_it_scores_as_what_is_exported_today() -> None:
    exported, committed = make_graph(), onnx.load(GRAPH)
    assert [node.op_type for node in exported.graph.node] == [node.op_type for node in committed.graph.node], (
        "run tests/data/make_model.py"
    )
    feed = {
        "features": np.random.default_rng(0).standard_normal((40, WIDTH)).astype(np.float32),
        "lengths": np.array([30, 1, 9], np.int64),
    }
    today, then = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
        for model in (exported, committed)
    )
    for scores, expected in zip(today, then, strict=True):
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert then[0].std() > 0.1, "scores that do not vary show nothing"
