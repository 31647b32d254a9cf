"""The documentation: `sphinx-build -W --keep-going -b html docs docs/_build`."""

from importlib.metadata import version as version_of
from pathlib import Path

# A source distribution holds the notebooks once: it has no links.
notebooks = Path(__file__).with_name("notebooks")
if not notebooks.exists():
    notebooks.symlink_to("../notebooks")

project = "glow-jax"
author = "The glow-jax authors"
project_copyright = "The glow-jax authors"
version = release = version_of("glow-jax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "benchmarks/*.md"]
html_theme = "furo"
html_title = "glow-jax"
html_static_path = ["_static"]
html_css_files = ["glow.css"]

# The notebooks keep what they show: `notebooks/execute.py` runs them.
nb_execution_mode = "off"
myst_heading_anchors = 3
# JSON has no exact lexer for shortened output.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = "$ "
