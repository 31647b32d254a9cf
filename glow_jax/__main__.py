"""`python -m glow_jax COMMAND ...` is `glow-jax COMMAND ...`."""

from glow_jax.cli.program import main

if __name__ == "__main__":
    main()
