"""What the export tests share."""

import pytest
from small_model import METADATA

from refineloc.runtime.model.metadata import ModelMetadata


@pytest.fixture
def metadata() -> ModelMetadata:
    """Of a model with 5 classes on features of width 24."""
    return METADATA
