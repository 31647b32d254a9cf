"""Files of strangers: read in memory within a limit, never unpacked to disk, never executed."""
