"""Types of what users hand in."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""An array with a dtype and a shape, of JAX or of NumPy."""
