"""Coupling networks in a form that is fast on a CPU."""
