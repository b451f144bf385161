"""Jobs over many videos, done in parts: they go on after a kill, and split into shards and processes.

A job is a list of videos with their sizes. `blocks.py` splits it into blocks, `parts.py` writes the rows of a block
into a file of its own (a part) and merges the parts, `run.py` does blocks here, in processes (`processes.py`) or in
Ray (`actors.py`), and `detection.py` is the work of `refineloc-detect`. Work of another kind needs a class with the two
methods of `blocks.Work`.
"""
