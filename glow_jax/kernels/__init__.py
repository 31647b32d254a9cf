"""Arithmetic in forms that are fast on a CPU and on an NVIDIA GPU."""
