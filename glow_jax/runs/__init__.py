"""Run folders: the one place that opens their files."""
