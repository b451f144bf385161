"""Films: decoding on a constant grid of times, snippets, and the backbone that turns these into features."""
