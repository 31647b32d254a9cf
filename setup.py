"""The long description: README.md for readers who have neither its pictures nor the files it links.

All else about the package is in pyproject.toml.
"""

import re
from pathlib import Path

from setuptools import setup


def in_words(link: re.Match[str]) -> str:
    """What stands for a picture, or for a link to a file of the repository."""
    is_picture, text, file = link.groups()
    if is_picture:
        return f"*[{text}]*"
    return text if text == file else f"{text} (`{file}`)"


readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"(!?)\[([^]]+)\]\((?!\w+:|#)([^)]+)\)", in_words, readme),
    long_description_content_type="text/markdown",
)
