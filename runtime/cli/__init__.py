"""refineloc."""
