"""The order in which Harmony works: blocks of cells, sorted by batch, cut into chunks.

Inside a block, cells of the same batch combination need the same row of the diversity penalty.
Sorted together they form a segment, and a segment's update is two matrix-vector products. Long
segments are cut into chunks that fit the cache; short ones share a chunk. The cuts depend on the
cells alone, never on the number of threads.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Portions:
    """How much is worked on at a time.

    ``chunk`` and ``kmeans`` are rows of a task. Segments below half of ``shared`` rows share a
    chunk of at most so many rows and ``pieces`` segments.
    """

    chunk: int
    kmeans: int
    shared: int
    pieces: int


CPU = Portions(chunk=1024, kmeans=4096, shared=512, pieces=32)  # a chunk stays in the cache
GPU = Portions(chunk=2**18, kmeans=2**18, shared=2**18, pieces=128)  # few calls, each costs 10 us


@dataclass(frozen=True)
class Chunk:
    """Rows ``start:stop`` of the sorted cells: one or more pieces of a batch combination each.

    ``pieces`` are positions among the combinations present in the block, ``edges`` the pieces'
    bounds counted from ``start``. ``own`` is each row's own place in a flat table of rows x
    pieces (None where there is one piece). ``slot`` is the number of the first piece within the
    block.
    """

    start: int
    stop: int
    block: int
    slot: int
    pieces: np.ndarray
    edges: tuple[int, ...]
    own: Any | None

    @property
    def rows(self) -> slice:
        """The chunk's place among the sorted cells."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Block:
    """One block: its chunks, the combinations present, and which piece opens each of them."""

    chunks: tuple[Chunk, ...]
    combinations: np.ndarray
    first_piece: np.ndarray
    n_pieces: int


@dataclass(frozen=True)
class Layout:
    """The blocks in working order; ``order[i]`` is the cell at sorted position ``i``."""

    order: Any
    blocks: tuple[Block, ...]

    @property
    def chunks(self) -> list[Chunk]:
        """All chunks in order."""
        return [chunk for block in self.blocks for chunk in block.chunks]

    def on(self, xp: Any) -> Layout:
        """Return the layout with what belongs to every cell in arrays of ``xp``."""

        def place(chunk: Chunk) -> Chunk:
            return chunk if chunk.own is None else replace(chunk, own=xp.asarray(chunk.own))

        blocks = [
            replace(block, chunks=tuple(place(chunk) for chunk in block.chunks))
            for block in self.blocks
        ]
        return Layout(xp.asarray(self.order), tuple(blocks))


def draw_blocks(n_cells: int, proportion: float, rng: np.random.Generator) -> np.ndarray:
    """Deal the cells at random into blocks of ``proportion`` of them.

    Returns the block of every cell, shape (n_cells,). As in R, blocks below 40 cells in all are
    of at least 20 %.
    """
    if n_cells < 40:
        proportion = max(proportion, 0.2)
    n_blocks = min(int(np.ceil(1 / proportion - 1e-9)), n_cells)
    dtype = np.min_scalar_type(n_blocks)
    bounds = -(-np.arange(n_blocks + 1) * n_cells // n_blocks)
    blocks = np.repeat(np.arange(n_blocks, dtype=dtype), np.diff(bounds))
    rng.shuffle(blocks)
    return blocks


def sort_cells(blocks: np.ndarray, combinations: np.ndarray, portions: Portions) -> Layout:
    """Sort the cells by block and batch combination and cut them into chunks.

    Parameters
    ----------
    blocks
        Block of every cell, shape (n_cells,), numbered from 0 without gaps.
    combinations
        Batch combination of every cell, shape (n_cells,), numbered from 0.
    portions
        Most rows of a chunk, and what shares one.

    Returns
    -------
    The layout. Memory: 8 bytes per cell, as many again where segments share chunks; 24 while
    sorting.
    """
    n_combinations = int(combinations.max()) + 1
    n_blocks = int(blocks.max()) + 1
    key = blocks.astype(np.min_scalar_type(n_blocks * n_combinations)) * n_combinations
    key += combinations.astype(key.dtype)
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(sorted_key)) + 1])
    stops = np.append(starts[1:], len(key))
    present = sorted_key[starts].astype(np.int64)
    block_of_segment = present // n_combinations
    combination_of_segment = present % n_combinations
    bounds = np.searchsorted(block_of_segment, np.arange(n_blocks + 1))
    return Layout(
        order=order,
        blocks=tuple(
            _cut_block(
                number,
                combination_of_segment[first:last],
                starts[first:last].tolist(),
                stops[first:last].tolist(),
                portions,
            )
            for number, (first, last) in enumerate(itertools.pairwise(bounds))
        ),
    )


def _cut_block(
    number: int,
    combinations: np.ndarray,
    starts: list[int],
    stops: list[int],
    portions: Portions,
) -> Block:
    """Cut one block's segments into chunks."""
    chunks: list[Chunk] = []
    first_piece: list[int] = []
    shared: list[tuple[int, int, int]] = []
    slot = 0
    limit = min(portions.shared, portions.chunk)

    def close(pieces: list[tuple[int, int, int]]) -> None:
        nonlocal slot
        start, stop = pieces[0][1], pieces[-1][2]
        sizes = [last - first for _, first, last in pieces]
        own = None
        if len(pieces) > 1:
            own = np.arange(stop - start) * len(pieces) + np.repeat(np.arange(len(pieces)), sizes)
        chunks.append(
            Chunk(
                start=start,
                stop=stop,
                block=number,
                slot=slot,
                pieces=np.array([index for index, _, _ in pieces]),
                edges=(0, *np.cumsum(sizes).tolist()),
                own=own,
            )
        )
        slot += len(pieces)

    n_pieces = 0
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        first_piece.append(n_pieces)
        size = stop - start
        full = shared and (stop - shared[0][1] > limit or len(shared) == portions.pieces)
        if shared and (full or size > limit // 2):
            close(shared)
            shared = []
        if size <= limit // 2:
            shared.append((index, start, stop))
            n_pieces += 1
            continue
        parts = -(-size // portions.chunk)
        cuts = [start + size * part // parts for part in range(parts + 1)]
        for first, last in itertools.pairwise(cuts):
            close([(index, first, last)])
        n_pieces += parts
    if shared:
        close(shared)
    return Block(tuple(chunks), combinations, np.array(first_piece), n_pieces)
