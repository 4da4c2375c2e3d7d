"""Training of models: configuration, losses, training loop and ridge regression."""
