"""Training of the local density of states."""
