"""The networks of the base models, one base model a file (training/models/base_model.py)."""
