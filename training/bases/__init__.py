"""Base models, one a file; training/base_model.py says what a file has to hold."""
