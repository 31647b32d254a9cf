"""Training: one class for a run, and what it is made of."""
