"""Types of the values that users pass in."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""A JAX or NumPy array, with a dtype and a shape."""
