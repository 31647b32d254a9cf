"""Coupling networks as a CPU computes them fast."""
