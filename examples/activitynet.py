"""ActivityNet 1.2's rows of published-and-ours.md, from I3D features of its training and validation (test) videos.

    .venv/bin/python examples/activitynet.py FEATURES [--base NAME] [--seeds 5] [--labels FOLDER] [--out FOLDER]

FEATURES is a folder with train.h5 and test.h5: a data set [T, 2048] a video, one row for 16 frames.
"""

import sys

from published_rows import DataSet, main

DATA = DataSet(
    "ActivityNet 1.2",
    "activitynet_v1-2_train_groundtruth.csv",
    "activitynet_v1-2_valid_groundtruth.csv",
    (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "activitynet-i3d",
)

if __name__ == "__main__":
    main(DATA, sys.argv[1:])
