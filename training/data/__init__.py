"""Features and labels as they are trained on."""
