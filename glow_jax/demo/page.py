"""The page, by gradio: its tabs, its looks, and how it is opened.

It asks nothing of the internet: its fonts are the visitor's, gradio's makers hear nothing.
"""

import os
import threading
from importlib.resources import files

# Before gradio is imported: it would tell its makers of every start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr  # pyright: ignore[reportMissingImports]  # an extra
from gradio.themes import Base  # pyright: ignore[reportMissingImports]
from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

from glow_jax.demo import views
from glow_jax.demo.desk import Desk
from glow_jax.demo.limits import Bounded
from glow_jax.demo.tab_editing import editing
from glow_jax.demo.tabs import drawing, looking
from glow_jax.errors import GlowError

_FONTS = ["system-ui", "sans-serif"]
_VISITORS_AT_ONCE = 2


def build(desk: Desk) -> gr.Blocks:
    """Build the page of a run."""
    with gr.Blocks(title=f"Glow of {desk.studio.training_name}", analytics_enabled=False) as page:
        gr.HTML(views.of_run(desk.studio))
        with gr.Tabs():
            with gr.Tab("Draw", id="draw"):
                drawing(page, desk)
            with gr.Tab("Your image", id="image"):
                mine = looking(desk)
            with gr.Tab("Edit", id="edit"):
                editing(page, desk, mine)
    return page


def launch(page: gr.Blocks, *, host: str, port: int | None) -> str:
    """Open the page and return its address, while it answers in the background.

    Args:
        page: the page.
        host: the address to listen at: 127.0.0.1 is for this machine alone.
        port: the port; None takes the first free one from 7860.

    Raises:
        GlowError: the address cannot be listened at.
    """
    sources = files("glow_jax.demo")
    page.queue(default_concurrency_limit=_VISITORS_AT_ONCE)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            theme=_theme(),
            css=(sources / "page.css").read_text(),
            head=f"<script>{(sources / 'page.js').read_text()}</script>",
            footer_links=[],
            share=False,
            ssr_mode=False,
            max_file_size=1024,  # nothing is uploaded: pictures come as text, and are never files
            app_kwargs={"middleware": [Middleware(Bounded)]},
            quiet=True,
        )
    except OSError as error:
        where = f"{host}, port {port}" if port else host
        raise GlowError(f"The page cannot be opened at {where}: {_reason(error)}.") from None
    return address


def _reason(error: OSError) -> str:
    """What the system says; gradio's own errors are of ports that are taken."""
    return error.strerror or "the port is taken: give --port another number, or leave it out"


def _theme() -> Base:
    """Quiet, with the visitor's own fonts, and with small letters dark enough to read."""
    plain = Base(font=_FONTS, font_mono=_FONTS)
    return plain.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def wait(page: gr.Blocks) -> None:
    """Wait for Ctrl-C, and close the page.

    Raises:
        KeyboardInterrupt: as soon as it comes.
    """
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
