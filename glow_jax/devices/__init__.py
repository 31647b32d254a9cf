"""Devices, processes and compiler options: the one place that knows how many there are."""
