"""Pictures: time lines of a video, and the figures of a diagnosis."""
