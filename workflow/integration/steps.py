"""The integration methods: what they write, their command lines, memory and time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from integration.options import CountsMethodOptions, EmbeddingMethodOptions, IntegrationOptions
from preprocessing.steps import matrix_words
from utils.options import named, option_words, words
from utils.resources import n_values
from utils.steps import Step

STORES = {
    "embedding": "{dataset}/{method}/embedding.zarr",
    "merges": "{dataset}/{method}/merges.tsv",
    "topics": "{dataset}/{method}/topics/top_genes.tsv",
}


def method_words(job: Any) -> list[str]:
    """Write the options of any integration method."""
    params = job.params
    line = named("--batch", job.dataset.integration.batch or []) if params.needs_batch else []
    if isinstance(params, EmbeddingMethodOptions) and job.start[0] != IntegrationOptions.basis:
        line += words(basis=job.start[0])
    if isinstance(params, CountsMethodOptions):
        line += matrix_words(job.dataset.preprocessing)
    if job.method != params.method:
        line += words(key_added=f"X_{job.method}")
    line += ["--overwrite", *option_words(type(params), params)]
    return line + job.run_words("integration", device=params.has_gpu)


def _counts_memory(job: Any, inputs: list[str]) -> float:
    """32 bytes for each count where no gene is chosen."""
    chosen = getattr(job.params, "highly_variable", True)
    if chosen and (Path(inputs[0]) / "var" / "highly_variable").exists():
        return 0
    return 32 * n_values(inputs[0]) / 1e6


STEPS = {
    "harmony": Step(
        script="integration/scripts/harmony.py",
        words=method_words,
        memory=(1000, 2000),
        minutes=(10, 20),
        gpu="integration",
    ),
    "vae": Step(
        script="integration/scripts/vae.py",
        words=method_words,
        memory=(2000, 6000),
        more_memory=_counts_memory,
        minutes=(10, 600),
        gpu="integration",
    ),
    "scvi": Step(
        script="integration/scripts/scvi.py",
        words=method_words,
        memory=(2000, 6000),
        more_memory=_counts_memory,
        minutes=(120, 600),
        gpu="integration",
    ),
    "mnn": Step(
        script="integration/scripts/mnn.py",
        words=method_words,
        memory=(2000, 4000),
        minutes=(10, 60),
    ),
    "topics": Step(
        script="integration/scripts/topics.py",
        words=method_words,
        memory=(1000, 12000),
        more_memory=_counts_memory,
        minutes=(10, 120),
    ),
}
