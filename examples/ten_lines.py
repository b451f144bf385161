"""The detector in your own program: `python examples/ten_lines.py model.onnx features.npy 25`."""

import sys

import numpy as np

from refineloc.runtime import Detector

if len(sys.argv) != 4:
    sys.exit("usage: ten_lines.py MODEL.onnx FEATURES.npy FPS")
model, features, fps = sys.argv[1:]
detector = Detector(model)
for start, end, label, score in detector.detect(np.load(features), fps=float(fps)):
    print(f"{start:8.2f} s  {end:8.2f} s  {score:.3f}  {label}")
