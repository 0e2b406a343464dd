"""The colors of categories, those of pictures and of files alike."""

from __future__ import annotations

import numpy as np

# Six colors of Okabe and Ito (2008), then each time the color farthest in OKLab from those taken,
# white and gray; a distance is the smaller of that seen by most people and twice that seen by
# deuteranopes and protanopes (Machado et al. 2009). None is pale or dark, the first 24 not gaudy.
COLORS = """
    0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 992266 66ee77 9955ff 775500 5533cc ff3366
    00ccaa cc22aa ff9999 cc0033 7788ee cccc00 8811aa 665588 66ddff 007744 888844 99bb66
    771100 0000ff 552277 ff00cc 225566 ee88dd 996688 aaddaa 770044 332299 bb11dd bb66cc
    ffaadd aabbff aa9900 0000cc 4444ff ee55ff 559999 990022 bb4466 bb99bb 4488cc 444488
    773344 dd8855 cc99ff ff6688 995544 88cccc 00cc22 bb1177 009900 553355 cc6666 7744bb
    ff9955 9955aa ffbb55 ff0088
"""


def palette(n: int) -> np.ndarray:
    """Colors of n categories: (n, 3), sRGB from 0 to 1; those of n are the first of n + 1."""
    table = np.array([rgb(color) for color in COLORS.split()])
    return table[np.arange(n) % len(table)]


def rgb(color: str) -> np.ndarray:
    """Read six hexadecimal digits as sRGB from 0 to 1."""
    return np.array([*bytes.fromhex(color.removeprefix("#"))]) / 255


def hexadecimal(n: int) -> list[str]:
    """Write the colors of n categories as AnnData's ``uns/{column}_colors`` has them."""
    table = COLORS.split()
    return [f"#{table[i % len(table)]}" for i in range(n)]
