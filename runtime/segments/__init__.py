"""From scores to segments, and from snippets to seconds."""
