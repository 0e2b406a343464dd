"""Colors: of numbers, of text and of what is missing."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

INK, PALE, MISSING = "#222222", "#707070", "#d9d9d9"
COLORMAP = "viridis"


def color_scale(values: np.ndarray) -> tuple[ScalarMappable, str]:
    """Make the colors of numbers, from their 1 % to their 99 % quantile (finite ones only).

    Where both are equal, all values span the scale. Also tells at which ends some lie beyond it:
    ``neither``, ``min``, ``max`` or ``both``.
    """
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, (0.01, 0.99)) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = finite.min(), finite.max()
    margin = 0.0 if low < high else 0.05 * abs(low) or 0.05
    low, high = low - margin, high + margin
    beyond = int((values < low).any()) + 2 * int((values > high).any())
    colors = colormaps[COLORMAP].with_extremes(bad=MISSING)
    scale = ScalarMappable(Normalize(low, high), colors)
    return scale, ("neither", "min", "max", "both")[beyond]
