"""The page to look at a data set: where it is written, its command line, memory and time."""

from __future__ import annotations

import shlex
from typing import Any

from utils.options import named
from utils.steps import Step

STORES = {"explorer": "{dataset}/explorer.html"}


def _explorer(job: Any) -> list[str]:
    dataset = job.dataset
    return [
        *("--title", shlex.quote(job.wildcards.dataset)),
        *named("--names", dataset.methods),
        *named("--colors", dataset.clustering.umap_colors),
        *named("--batch", dataset.integration.batch or []),
        *job.run_words("clustering", device=False),
    ]


STEPS = {
    "explorer": Step(
        script="explorer/scripts/explorer.py",
        words=_explorer,
        memory=(1000, 1500),
        minutes=(30, 0),
    )
}
