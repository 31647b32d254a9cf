"""The command line: only arguments and printing."""
