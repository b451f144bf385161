"""Training: the paper's method, from features and video-level labels to a run with one model for each iteration.

The way of the data: config, presets -> data -> bases -> losses -> refine (the loop) -> pseudo_labels -> run (files).
This package imports nothing by itself, so that `refineloc-synth` works without torch.
"""
