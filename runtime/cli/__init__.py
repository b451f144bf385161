"""The programs of the runtime: refineloc-detect, refineloc-doctor."""
