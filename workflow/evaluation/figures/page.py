"""The page that every figure is drawn on, and the file it is written to.

A page is an Axes over the whole figure, in inches from its top left corner. Text is measured before
it is placed. Figures are made without pyplot: no global state, no display; the same input gives the
same bytes.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from evaluation.figures.color_scale import INK, PALE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

DPI = 150
FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine
TITLE_LINE, NOTE_LINE = 0.21, 0.15  # inches
# Metadata that would differ between two runs, or between two versions of matplotlib.
UNSET_METADATA = {
    ".png": {},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


# ---------------------------------------------------------------- text


def drawable(text: object) -> str:
    """Replace what cannot be drawn: white space by a space, letters the font lacks by a mark."""
    font = get_font(findfont(FontProperties(family=FONT)))
    return "".join(
        " " if letter.isspace() else letter if font.get_char_index(ord(letter)) else "\ufffd"
        for letter in str(text)
    )


@lru_cache(maxsize=4096)  # the columns of a data set share names
def shorten(name: str, max_length: int = 40) -> str:
    """Cut a long name in its middle: names often differ at their end."""
    name = drawable(name).strip() or "(empty)"
    tail = max_length // 3
    return name if len(name) <= max_length else f"{name[: max_length - tail - 1]}…{name[-tail:]}"


@lru_cache(maxsize=4096)
def text_extent(text: str, size: float, weight: str = "normal") -> np.ndarray:
    """Measure the width and height of a text in points."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    return np.array(RendererAgg(8, 8, 72).get_text_width_height_descent(text, font, False)[:2])


def text_width(texts: Sequence[str], size: float = 8.5) -> float:
    """Measure the longest of some shortened texts in inches."""
    return max((text_extent(shorten(text), size)[0] / 72 for text in texts), default=0.0)


def write_text(page: Axes, x: float, y: float, text: str, **style: object) -> None:
    """Write a text in the font and color of all figures; a dollar sign starts no formula."""
    page.text(x, y, text, **{"color": INK, "fontfamily": FONT, "parse_math": False, **style})


# ---------------------------------------------------------------- pages


class Heading(NamedTuple):
    """The lines above a figure or one of its panels."""

    title: list[str]  # bold
    notes: list[str]  # small and gray
    gap: float = 0.0  # inches between them

    @property
    def height(self) -> float:
        """Inches from the top of the first line to the end of the last."""
        return TITLE_LINE * len(self.title) + self.gap + NOTE_LINE * len(self.notes)

    def write(self, page: Axes, x: float, y: float) -> None:
        """Write the lines from `y` downward."""
        for line in self.title:
            write_text(page, x, y, line, size=12, weight="bold", va="top")
            y += TITLE_LINE
        y += self.gap
        for line in self.notes:
            write_text(page, x, y, line, size=8, color=PALE, va="top")
            y += NOTE_LINE


def page_heading(title: str, notes: str, width: float) -> Heading:
    """Cut a title to one line of a page, and fold the notes; written at (0.2, 0.15)."""
    width -= 0.4
    title = shorten(title, max(int(width / 0.115), 20))
    return Heading([title], textwrap.wrap(notes, max(int(width / 0.066), 30)), gap=0.04)


def new_page(width: float, height: float, heading: Heading | None = None) -> tuple[Figure, Axes]:
    """Make a figure and the Axes that its text and shapes are placed on."""
    fig = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(fig)
    page = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.axis("off")
    if heading:
        heading.write(page, 0.2, 0.15)
    return fig, page


def add_axes(page: Axes, x: float, top: float, width: float, height: float, **options) -> Axes:
    """Add Axes with coordinates of their own, whose box is given in inches of the page."""
    page_width, page_height = page.figure.get_size_inches()
    box = (x / page_width, 1 - (top + height) / page_height,
           width / page_width, height / page_height)  # fmt: skip
    return page.figure.add_axes(box, **options)


# ---------------------------------------------------------------- files


def save_figure(fig: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG: whole or not at all, the same bytes in every run.

    Parameters
    ----------
    fig
        From any function of this folder.
    path
        Its ending names the format. Missing folders are made.

    Raises
    ------
    ValueError
        If the ending is none of .png, .pdf and .svg.
    """
    from utils.atomic import atomic_file

    suffix = figure_format(path)
    with atomic_file(path) as temporary, rc_context({"svg.hashsalt": "cellstrata"}):
        if suffix == ".png":
            _write_png(fig, temporary)
        else:
            fig.savefig(temporary, format=suffix[1:], dpi=DPI, metadata=UNSET_METADATA[suffix])


def _write_png(fig: Figure, path: Path) -> None:
    """Write pixels without transparency, of which there is none: a quarter less to compress."""
    from PIL import Image

    fig.set_dpi(DPI)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    # Dots hardly compress: a higher level takes longer and saves nothing.
    Image.fromarray(pixels).save(path, format="PNG", dpi=(DPI, DPI), compress_level=2)


def figure_format(path: str | Path) -> str:
    """Return a figure's ending, or raise a ValueError that lists the possible ones."""
    suffix = Path(path).suffix.lower()
    if suffix not in UNSET_METADATA:
        raise ValueError(f"{path}: a figure is written as .png, .pdf or .svg, not {suffix!r}")
    return suffix


def file_stem(column: object) -> str:
    """Name a file after a column: readable, safe on every file system, one per column.

    Names of lower-case ASCII letters, digits and ``._+-`` stay as they are (``cell_type``,
    ``leiden_0.5_2``). In others, and in those longer than 80 characters, what is unsafe is
    replaced and a hash of the name added. Upper-case letters are kept, but call for the hash
    (``X_umap-7eebc759``): on many disks ``X`` and ``x`` are one file.

    Parameters
    ----------
    column
        Name of a column of obs, of any length and in any script.

    Returns
    -------
    str
        1 to 80 ASCII characters, without a file ending, that differ in more than case.
    """
    name = str(column)
    if re.fullmatch(r"[a-z0-9_+][a-z0-9._+-]{0,79}", name):
        return name
    digest = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    plain = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))  # no accents
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain)[:70].strip("._-")
    return f"{plain or 'column'}-{digest}"
