"""Training: one class for a run, and its parts."""
