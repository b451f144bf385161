"""What the export tests share."""

import pytest

from refineloc.runtime.model.metadata import ModelMetadata


@pytest.fixture
def metadata() -> ModelMetadata:
    """Of a model with 5 classes on features of width 24."""
    return ModelMetadata(
        classes=("jump", "run", "swim", "throw", "walk"),
        width=24,
        snippet_frames=16,
        stream="both",
        stream_order="temporal-spatial",
        profile="paper",
        alpha_a=0.5,
        alpha_c=0.3,
        top_k=2,
        max_gap=1,
        widen=2,
        nms=None,
        preset="",
        base="refineloc",
        iteration=1,
        layers=2,
        attention_values=2,
        precision="fp32",
        training_data="train.h5",
        producer="refineloc 0.1.0",
    )
