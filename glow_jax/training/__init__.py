"""Training: the optimizer, one pure step, many devices, and the loop around them."""
