"""What a base model is, the base models, and the layers they are built of."""
