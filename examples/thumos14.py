"""THUMOS14's rows of published-and-ours.md, from I3D features of its validation (train) and test videos.

    .venv/bin/python examples/thumos14.py FEATURES [--base NAME] [--seeds 5] [--labels FOLDER] [--out FOLDER]

FEATURES is a folder with train.h5 and test.h5: a data set [T, 2048] a video, one row for 16 frames.
"""

import sys

from published_rows import DataSet, main

DATA = DataSet(
    "THUMOS14",
    "thumos14_valid_groundtruth.csv",
    "thumos14_test_groundtruth.csv",
    (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "thumos14-i3d",
)

if __name__ == "__main__":
    main(DATA, sys.argv[1:])
