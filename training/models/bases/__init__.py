"""The networks of the base models, one a file; training/models/base_model.py says what a file has to hold."""
