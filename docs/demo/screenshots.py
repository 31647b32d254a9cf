"""The pictures of the demo's page in the docs, at the widths of a desk and of a telephone.

python demo.py models/fashion_mnist --dataroot data --port 7860
python docs/demo/screenshots.py http://127.0.0.1:7860/
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import (  # pyright: ignore[reportMissingImports]  # an extra
    Page,
    sync_playwright,
)

FOLDER = Path(__file__).parent
WIDTHS = {"": 900, "-phone": 375}


def save(page: Page, name: str) -> None:
    """Save the whole page as a small PNG."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture.save(FOLDER / f"{name}.png", optimize=True)


def visit(page: Page, suffix: str) -> None:
    """Use each part of the page, and save it."""
    page.get_by_role("img", name="16 images drawn").wait_for()
    page.get_by_role("img", name="Image 1, no noise").wait_for()
    save(page, f"draw{suffix}")
    page.get_by_role("tab", name="Your image").click()
    page.get_by_role("spinbutton", name="Test image").fill("7")
    page.get_by_role("button", name="Look at the test image").click()
    page.get_by_role("img", name="drawn anew, draw 1").wait_for()
    save(page, f"image{suffix}")
    page.get_by_role("tab", name="Edit").click()
    for number, name in ((7, "first"), (2, "second")):
        page.get_by_role("spinbutton", name=f"seed of the {name} image").fill(str(number))
        page.get_by_role("button", name=f"Take as {name} image").click()
        page.get_by_role("img", name=f"{name}: test image {number}").wait_for()
    mix = page.get_by_role("spinbutton", name="number input for Mix")
    mix.fill("0.5")
    mix.press("Enter")
    page.wait_for_timeout(3000)
    save(page, f"edit{suffix}")


def main() -> None:
    """Visit the page at the address of the command line."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for suffix, width in WIDTHS.items():
            page = chromium.new_page(viewport={"width": width, "height": 800})
            page.goto(sys.argv[1])
            visit(page, suffix)
        chromium.close()


if __name__ == "__main__":
    main()
