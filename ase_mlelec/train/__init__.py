"""Training: data (frames), losses, and one loop (fit)."""
