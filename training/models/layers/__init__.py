"""What base models are built of: the method's activations, and layers that work on packed batches without padding."""
