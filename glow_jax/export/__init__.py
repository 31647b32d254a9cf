"""A trained model as files that need neither this package nor its classes.

A run becomes programs of `jax.export` and ONNX models. Each file holds the weights and is complete.
"""

from glow_jax.export.folder import Exported, export_programs

__all__ = ["Exported", "export_programs"]
