"""The ONNX file: what it may hold, what it says of itself, and the session that runs it."""
