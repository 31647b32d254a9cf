"""The bridge to PyTorch: the only part of the project that imports torch."""
