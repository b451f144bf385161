"""Every setting of a run, with its unit and its source, and the presets."""
