"""`refineloc-synth`: a small, seeded sample data set."""
