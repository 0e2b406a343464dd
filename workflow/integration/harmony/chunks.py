"""Harmony's order of cells: in blocks, sorted by batch, cut into chunks.

Inside a block, cells of the same batch combination need the same row of the diversity penalty.
Sorted together they form a segment, and a segment's update is two matrix-vector products. Long
segments are cut into chunks that fit the cache; short ones share a chunk. The cuts depend on the
cells alone, never on the number of threads.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ChunkSizes:
    """The largest sizes of a task.

    ``rows`` and ``kmeans_rows`` are cells of a chunk. Segments of at most half of
    ``shared_rows`` share a chunk of at most that many rows and ``pieces`` segments.
    """

    rows: int
    kmeans_rows: int
    shared_rows: int
    pieces: int


# On the CPU a chunk stays in the cache; on the GPU calls are few, as each costs 10 us.
CPU = ChunkSizes(rows=1024, kmeans_rows=4096, shared_rows=512, pieces=32)
GPU = ChunkSizes(rows=2**18, kmeans_rows=2**18, shared_rows=2**18, pieces=128)


@dataclass(frozen=True)
class Chunk:
    """Rows ``start:stop`` of the sorted cells: one or more pieces of a batch combination each.

    ``pieces`` are positions among the combinations present in the block, ``edges`` the pieces'
    bounds counted from ``start``. ``flat_index`` is where each row's piece is in a flat table of
    rows x pieces (None where there is one piece). ``first_piece`` is the number of the first
    piece within the block.
    """

    start: int
    stop: int
    block: int
    first_piece: int
    pieces: np.ndarray
    edges: tuple[int, ...]
    flat_index: Any | None

    @property
    def rows(self) -> slice:
        """The chunk's rows among the sorted cells."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Block:
    """One block: its chunks, the combinations present, and the first piece of each of them."""

    chunks: tuple[Chunk, ...]
    combinations: np.ndarray
    first_pieces: np.ndarray
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


def draw_blocks(n_cells: int, proportion: float, rng: np.random.Generator) -> np.ndarray:
    """Draw random blocks of the cells, each with the share ``proportion`` of them.

    Returns the block of every cell, shape (n_cells,). As in R, the share is at least 20 % where
    there are fewer than 40 cells.
    """
    if n_cells < 40:
        proportion = max(proportion, 0.2)
    n_blocks = min(int(np.ceil(1 / proportion - 1e-9)), n_cells)
    dtype = np.min_scalar_type(n_blocks)
    bounds = -(-np.arange(n_blocks + 1) * n_cells // n_blocks)
    blocks = np.repeat(np.arange(n_blocks, dtype=dtype), np.diff(bounds))
    rng.shuffle(blocks)
    return blocks


def sort_cells(
    blocks: np.ndarray, combinations: np.ndarray, sizes: ChunkSizes, xp: Any = np
) -> Layout:
    """Sort the cells by block and batch combination and cut them into chunks.

    Parameters
    ----------
    blocks
        Block of every cell, shape (n_cells,), numbered from 0 without gaps.
    combinations
        Batch combination of every cell, shape (n_cells,), numbered from 0.
    sizes
        The largest sizes of a chunk.
    xp
        Array namespace of the layout's arrays that have a number per cell.

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
        order=xp.asarray(order),
        blocks=tuple(
            _cut_block(
                number,
                combination_of_segment[first:last],
                starts[first:last].tolist(),
                stops[first:last].tolist(),
                sizes,
                xp,
            )
            for number, (first, last) in enumerate(itertools.pairwise(bounds))
        ),
    )


def _cut_block(
    number: int,
    combinations: np.ndarray,
    starts: list[int],
    stops: list[int],
    sizes: ChunkSizes,
    xp: Any,
) -> Block:
    """Cut one block's segments into chunks."""
    chunks: list[Chunk] = []
    first_pieces: list[int] = []
    shared: list[tuple[int, int, int]] = []  # segments of the chunk that is being filled
    n_pieces = 0
    limit = min(sizes.shared_rows, sizes.rows)
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        is_long = stop - start > limit // 2
        is_full = shared and (stop - shared[0][1] > limit or len(shared) == sizes.pieces)
        if shared and (is_long or is_full):
            chunks.append(_make_chunk(number, n_pieces - len(shared), shared, xp))
            shared = []
        first_pieces.append(n_pieces)
        if not is_long:
            shared.append((index, start, stop))
            n_pieces += 1
            continue
        n_parts = -(-(stop - start) // sizes.rows)
        cuts = [start + (stop - start) * part // n_parts for part in range(n_parts + 1)]
        for first, last in itertools.pairwise(cuts):
            chunks.append(_make_chunk(number, n_pieces, [(index, first, last)], xp))
            n_pieces += 1
    if shared:
        chunks.append(_make_chunk(number, n_pieces - len(shared), shared, xp))
    return Block(tuple(chunks), combinations, np.array(first_pieces), n_pieces)


def _make_chunk(block: int, first_piece: int, pieces: list[tuple[int, int, int]], xp: Any) -> Chunk:
    """Build a chunk of consecutive pieces, each (combination's index, start, stop)."""
    start, stop = pieces[0][1], pieces[-1][2]
    n_rows = [last - first for _, first, last in pieces]
    flat_index = None
    if len(pieces) > 1:
        piece_of_row = np.repeat(np.arange(len(pieces)), n_rows)
        flat_index = xp.asarray(np.arange(stop - start) * len(pieces) + piece_of_row)
    return Chunk(
        start=start,
        stop=stop,
        block=block,
        first_piece=first_piece,
        pieces=np.array([index for index, _, _ in pieces]),
        edges=(0, *np.cumsum(n_rows).tolist()),
        flat_index=flat_index,
    )
