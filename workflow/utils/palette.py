"""Colors of categories, the same in pictures and in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# Six colors of Okabe and Ito (2008); each further one is the farthest in OKLab from those before
# it, white and gray. A distance is the smaller of that for normal vision and twice that for
# deuteranopes and protanopes (Machado et al. 2009). None is pale or dark, the first 24 not garish.
COLORS = """
    0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 992266 66ee77 9955ff 775500 5533cc ff3366
    00ccaa cc22aa ff9999 cc0033 7788ee cccc00 8811aa 665588 66ddff 007744 888844 99bb66
    771100 0000ff 552277 ff00cc 225566 ee88dd 996688 aaddaa 770044 332299 bb11dd bb66cc
    ffaadd aabbff aa9900 0000cc 4444ff ee55ff 559999 990022 bb4466 bb99bb 4488cc 444488
    773344 dd8855 cc99ff ff6688 995544 88cccc 00cc22 bb1177 009900 553355 cc6666 7744bb
    ff9955 9955aa ffbb55 ff0088
"""

UNUSED = "#d9d9d9"


def palette(n: int) -> np.ndarray:
    """Return the colors of n categories, the first n of any larger number: (n, 3), sRGB 0 to 1."""
    table = np.array([rgb(color) for color in COLORS.split()])
    return table[np.arange(n) % len(table)]


def rgb(color: str) -> np.ndarray:
    """Convert six hexadecimal digits to sRGB from 0 to 1."""
    return np.array([*bytes.fromhex(color.removeprefix("#"))]) / 255


def category_colors(values: pd.Categorical) -> np.ndarray:
    """Return a color per category as AnnData's ``uns/{column}_colors`` has them.

    Those that occur have the colors of `palette`, in their order; the others are gray.
    """
    colors = np.full(len(values.categories), UNUSED, dtype=object)
    used = np.unique(values.codes[values.codes >= 0])
    colors[used] = [f"#{color}" for color in np.resize(COLORS.split(), len(used))]
    return colors
