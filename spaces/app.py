"""The demo of a run as a Space of Hugging Face."""

import os
import sys

from glow_jax.cli.demo import main

if __name__ == "__main__":
    run = os.environ.get("GLOW_RUN", "run")
    # A Space listens at all addresses of its container, as its variables say.
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    images = os.environ.get("GLOW_DATAROOT")
    words = [run, "--host", host, "--port", port]
    sys.argv[1:] = [*words, "--dataroot", images] if images else words
    main()
