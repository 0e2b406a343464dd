"""Test the splits of clusters from the top down, and join the children that are not told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clustering.children import Unsplit
from clustering.significance.markers import NO_MARKERS, SideMarkers, held_out_markers
from clustering.significance.sample import choose_genes, draw_cells, groups_of_divisions
from clustering.significance.verdicts import (
    MIN_SCORED,
    NOTHING,
    SplitEvidence,
    Verdict,
    weigh,
)
from numerics.arrays import centroids_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import scipy.sparse as sp

    from clustering.significance.scores import Sample
    from preprocessing.gene_choice import GeneChoice

    Tree = dict[frozenset[int], tuple[frozenset[int], frozenset[int]]]


# Groups of children that are tested against all others where the root is not accepted.
N_ALTERNATIVES = 6
# Fewer genes have no halves of any use.
MIN_GENES = 10


class Division(NamedTuple):
    """A cluster and the children it would be split into.

    Attributes
    ----------
    cells
        int of shape (cells,), positions among all cells, in increasing order.
    labels
        Of the children, from 0 by size.
    resolution
        At which they were found.
    """

    cells: np.ndarray
    labels: np.ndarray
    resolution: float


class TestedSplit(NamedTuple):
    """A node of the dendrogram of a cluster's children: some of them against the others.

    Attributes
    ----------
    left, right
        Children, as they are after the test; the same one where they are joined.
    n_left, n_right
        Their cells.
    alpha
        Level of significance: the error rate of the whole tree times this node's share of all
        cells (Meinshausen 2008).
    p
        That of `evidence`, times the number of divisions that were tried.
    evidence, verdict
        What was found; an accepted split is not `absent`.
    joined
        Whether the children were joined.
    markers
        Genes that tell the sides apart; none where the verdict is `absent`.
    """

    left: list[int]
    right: list[int]
    n_left: int
    n_right: int
    alpha: float
    p: float
    evidence: SplitEvidence
    verdict: Verdict
    joined: bool
    markers: SideMarkers = NO_MARKERS

    def record(self, name_of: Callable[[int], str]) -> dict[str, Any]:
        """Return what is stored, with the names of the children."""
        numbers = {
            key: float(f"{value:.4g}")
            for key, value in {
                "alpha": self.alpha, "p": self.p, **self.evidence._asdict()
            }.items()
        }  # fmt: skip
        return {
            "left": [name_of(child) for child in self.left],
            "right": [name_of(child) for child in self.right],
            "n_left": self.n_left,
            "n_right": self.n_right,
            **numbers,
            "verdict": self.verdict,
            "joined": self.joined,
            "markers_left": self.markers.left,
            "markers_right": self.markers.right,
        }


class _Node(NamedTuple):
    """A tested node of a dendrogram, with the children as they were before the test."""

    left: frozenset[int]
    right: frozenset[int]
    alpha: float
    p: float
    evidence: SplitEvidence
    verdict: Verdict
    joined: bool
    markers: SideMarkers

    def after(self, number: np.ndarray, sizes: np.ndarray) -> TestedSplit:
        """Return the node with the children as they are numbered after the test."""
        left, right = list(self.left), list(self.right)
        return TestedSplit(
            sorted(set(number[left].tolist())),
            sorted(set(number[right].tolist())),
            int(sizes[left].sum()),
            int(sizes[right].sum()),
            *self[2:],
        )


class _Tested(NamedTuple):
    """A sample of a cluster with what its splits are tested by."""

    sample: Sample | None  # None: too few cells or genes to test anything
    centroids: np.ndarray  # of the children
    counts: sp.csr_matrix  # cells of the sample x all genes that enough of them have
    names: Sequence[str]  # of these genes
    half: np.ndarray  # of each, as `held_out_markers` takes it


class TestedChildren(NamedTuple):
    """The children of a cluster after the test: labels by size, and every node that was tested."""

    labels: np.ndarray
    splits: list[TestedSplit]

    @property
    def unsplit(self) -> Unsplit | None:
        """Why the cluster is not split, where it is not."""
        if self.labels.max() > 0:
            return None
        root = self.splits[0]
        if root.verdict == "gradual":
            text = f"no gap between its children (p {root.p:.2g})"
            return Unsplit("not_distinct", text)
        text = f"its children are not told apart (p {root.p:.2g}, not {root.alpha:.2g})"
        return Unsplit("not_significant", text)


@dataclass(frozen=True, kw_only=True)
class SplitTest:
    """How splits are tested.

    Attributes
    ----------
    read
        Takes the positions of the cells of several samples and returns their counts.
    batch
        int of shape (all cells,); all 0: no batches.
    representation
        All cells x dimensions, in which the children are ordered to a dendrogram; None: in
        components of the counts.
    n_cells
        Cells of the whole tree.
    significance
        Family-wise error rate of all splits of the tree.
    gradual
        ``keep`` or ``join`` children that no gap separates.
    algorithm, n_neighbors, seed, threads
        Of the clustering of the samples, and of samples tested at a time.
    genes
        Names of the genes; without them no markers are looked for.
    choice
        Genes that the test does not rest on, or the only ones that it does.

    Notes
    -----
    Peak memory: the counts of at most 30,000 cells that are read at a time (8 bytes per stored
    count), and per thread about 100 bytes per stored count of 2,000 genes in one sample.
    """

    read: Callable[[list[np.ndarray]], Iterable[sp.csr_matrix]]
    batch: np.ndarray
    representation: np.ndarray | None
    n_cells: int
    significance: float
    gradual: str
    algorithm: str
    n_neighbors: int
    seed: int = 0
    threads: int = 1
    genes: Sequence[str] | None = None
    choice: GeneChoice | None = None

    def __call__(self, divisions: list[Division]) -> Iterator[TestedChildren]:
        """Test divisions, and join what is not accepted.

        The result of one does not depend on the others.
        """
        return self._outcomes(divisions, joining=True)

    def examine(self, divisions: list[Division]) -> Iterator[list[TestedSplit]]:
        """Test every node of divisions, from the top down; nothing is joined.

        The verdict on a node does not depend on those above it.
        """
        return (tested.splits for tested in self._outcomes(divisions, joining=False))

    def _outcomes(self, divisions: list[Division], *, joining: bool) -> Iterator[TestedChildren]:
        from utils.log import progress

        outcomes = self._read_and_test(divisions, joining)
        return progress(outcomes, desc="testing splits", total=len(divisions))

    def _read_and_test(self, divisions: list[Division], joining: bool) -> Iterator[TestedChildren]:
        from utils.threads import one_blas_thread, ordered_map

        drawn = [draw_cells(division.labels, self._random(division, 0)) for division in divisions]
        with one_blas_thread():
            for group in groups_of_divisions([len(rows) for rows in drawn]):
                samples = [(divisions[i], drawn[i]) for i in group]
                counts = self.read([division.cells[rows] for division, rows in samples])
                yield from ordered_map(
                    lambda job: self._test(*job[0], job[1], joining),
                    zip(samples, counts, strict=True),
                    threads=self.threads,
                    in_flight=2 * self.threads,
                )

    def _random(self, division: Division, stream: int) -> np.random.Generator:
        """Random numbers that depend on the cells of the division alone."""
        key = [self.seed, stream, len(division.cells), int(division.cells[0])]
        return np.random.default_rng(key)

    def _test(
        self, division: Division, rows: np.ndarray, counts: sp.csr_matrix, joining: bool
    ) -> TestedChildren:
        from clustering.significance.scores import Sample

        cells, children = division.cells[rows], division.labels[rows]
        genes = choose_genes(counts, self.choice)
        sample, half = None, np.full(len(genes.found), -1)
        if len(cells) >= MIN_SCORED and len(genes.variable) >= MIN_GENES:
            sample = Sample(
                genes.variable_counts(),
                children,
                np.unique(self.batch[cells], return_inverse=True)[1],
                resolution=division.resolution,
                n_neighbors=self.n_neighbors,
                algorithm=self.algorithm,
                rng=self._random(division, 1),
            )
            half[genes.variable] = sample.halvings[0].half
        sizes = np.bincount(division.labels)
        if self.representation is not None:
            where = self.representation[cells]
        else:
            where = genes.variable_counts().toarray() if sample is None else sample.components
        names = [] if self.genes is None else [self.genes[gene] for gene in genes.found]
        centroids = centroids_of(where, children, len(sizes))
        tested = _Tested(sample, centroids, genes.counts, names, half)
        return self._top_down(division.labels, sizes, tested, joining)

    def _top_down(
        self, labels: np.ndarray, sizes: np.ndarray, tested: _Tested, joining: bool
    ) -> TestedChildren:
        """Test the nodes; if `joining`, join the children below each one that is not accepted."""
        from clustering.communities import renumber_by_size

        joined_to = np.arange(len(sizes))
        nodes: list[_Node] = []
        queue = [frozenset(range(len(sizes)))]
        while queue:
            members = queue.pop(0)
            if len(members) < 2:
                continue
            node = self._best_division(members, sizes, tested, alternatives=joining)
            joined = joining and not self._accepts(node.verdict)
            nodes.append(node._replace(joined=joined))
            if joined:
                joined_to[list(members)] = min(members)
            else:
                queue += [node.left, node.right]
        after = renumber_by_size(joined_to[labels]) if joining else labels
        # Of each child before, its number after.
        number = np.zeros(len(sizes), dtype=np.int64)
        number[labels] = after
        return TestedChildren(after, [node.after(number, sizes) for node in nodes])

    def _accepts(self, verdict: Verdict) -> bool:
        return verdict == "distinct" or (verdict == "gradual" and self.gradual == "keep")

    def _best_division(
        self, members: frozenset[int], sizes: np.ndarray, tested: _Tested, *, alternatives: bool
    ) -> _Node:
        """Test the root of the dendrogram of some children, and what else may divide them.

        Where the root is not accepted, the groups below it are each tested against all others:
        types that lie in a row are not told apart in the middle. The root has one half of the
        level of significance, the others share the other half (Bonferroni).
        """
        tree = dendrogram(tested.centroids, sizes, members)
        alpha = float(self.significance * sizes[list(members)].sum() / self.n_cells)
        groups = groups_below_root(tree, members)[:N_ALTERNATIVES] if alternatives else []
        root = self._node(tree[members], alpha, 2 if groups else 1, tested)
        if self._accepts(root.verdict):
            return root
        others = [
            self._node(
                _by_size(group, members - group, sizes), alpha, 2 * len(groups), tested, hasty=True
            )
            for group in groups
        ]
        accepted = [node for node in others if self._accepts(node.verdict)]
        return min(accepted, key=lambda node: node.p, default=root)

    def _node(
        self,
        sides: tuple[frozenset[int], frozenset[int]],
        alpha: float,
        n_tests: int,
        tested: _Tested,
        *,
        hasty: bool = False,
    ) -> _Node:
        """Test a node; if `hasty`, no further than shows it to be `absent`."""
        left, right = sides
        evidence, verdict, markers = self._evidence(
            tested, left, right, alpha / n_tests, hasty=hasty
        )
        p = min(1.0, evidence.p * n_tests)
        return _Node(left, right, alpha, p, evidence, verdict, False, markers)

    def _evidence(
        self,
        tested: _Tested,
        left: frozenset[int],
        right: frozenset[int],
        alpha: float,
        *,
        hasty: bool,
    ) -> tuple[SplitEvidence, Verdict, SideMarkers]:
        """Test a node, and find markers of its sides if they are told apart."""
        sample = tested.sample
        if sample is None:
            return NOTHING, NOTHING.verdict(alpha), NO_MARKERS
        cells = np.flatnonzero(np.isin(sample.children, list(left | right)))
        side = np.isin(sample.children[cells], list(right)).astype(np.int64)
        if not 0 < side.sum() < len(side):
            return NOTHING, NOTHING.verdict(alpha), NO_MARKERS
        scores = sample.scores(cells, side, max_p=alpha if hasty else 1.0)
        evidence = weigh(scores, side)
        verdict = evidence.verdict(alpha)
        if verdict == "absent" or not len(tested.names):
            return evidence, verdict, NO_MARKERS
        markers = held_out_markers(tested.counts, cells, tested.names, tested.half, scores)
        return evidence, verdict, markers


def untested_splits(
    division: Division, representation: np.ndarray, *, seed: int = 0
) -> list[dict[str, Any]]:
    """List the nodes of the dendrogram of a cluster's children, from the top down.

    Returns
    -------
    list of dict
        `left`, `right` (numbers of children), `n_left` and `n_right` (cells).
    """
    rows = draw_cells(division.labels, np.random.default_rng(seed))
    sizes = np.bincount(division.labels)
    points, children = representation[division.cells[rows]], division.labels[rows]
    everything = frozenset(range(len(sizes)))
    tree = dendrogram(centroids_of(points, children, len(sizes)), sizes, everything)
    splits, queue = [], [everything]
    while queue:
        node = queue.pop(0)
        if node in tree:
            left, right = tree[node]
            n_left, n_right = (int(sizes[list(side)].sum()) for side in (left, right))
            sides = {"left": sorted(left), "right": sorted(right)}
            splits.append({**sides, "n_left": n_left, "n_right": n_right})
            queue += [left, right]
    return splits


def count_verdicts(splits: list[TestedSplit]) -> str:
    """Count the verdicts, in words."""
    verdicts = [split.verdict for split in splits]
    counts = [f"{verdicts.count(v)} {v}" for v in ("distinct", "gradual", "absent")]
    return f"{len(splits)} splits tested: {', '.join(counts)}"


def dendrogram(centroids: np.ndarray, sizes: np.ndarray, members: frozenset[int]) -> Tree:
    """Join children to a binary tree by Ward's criterion.

    Parameters
    ----------
    centroids, sizes
        Centroid and cells of each child.
    members
        The children to join.

    Returns
    -------
    dict
        By the children of a node, those of its two sides; the larger one is the left.
    """
    nodes = [frozenset([child]) for child in sorted(members)]
    centers = [centroids[child] for child in sorted(members)]
    weights = [float(sizes[child]) for child in sorted(members)]
    tree: Tree = {}
    while len(nodes) > 1:
        center, weight = np.stack(centers), np.array(weights)
        squares = (center**2).sum(axis=1)
        distance = np.maximum(squares[:, None] + squares - 2 * center @ center.T, 0)
        cost = distance * (weight[:, None] * weight) / (weight[:, None] + weight)
        cost[np.tril_indices(len(cost))] = np.inf
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        tree[nodes[i] | nodes[j]] = _by_size(nodes[i], nodes[j], sizes)
        total = weights[i] + weights[j]
        joint_center = (centers[i] * weights[i] + centers[j] * weights[j]) / total
        joint = nodes[i] | nodes[j]
        for k in sorted((i, j), reverse=True):
            del nodes[k], centers[k], weights[k]
        nodes.append(joint)
        centers.append(joint_center)
        weights.append(total)
    return tree


def _by_size(
    one: frozenset[int], other: frozenset[int], sizes: np.ndarray
) -> tuple[frozenset[int], frozenset[int]]:
    """Put the side with more cells first."""
    first, second = sorted(
        (one, other), key=lambda side: (-int(sizes[list(side)].sum()), min(side))
    )
    return first, second


def groups_below_root(tree: Tree, root: frozenset[int]) -> list[frozenset[int]]:
    """List the nodes and children below the two sides of the root, those next to it first."""
    groups, queue = [], [side for side in tree[root] if side in tree]
    while queue:
        sides = tree[queue.pop(0)]
        groups += sides
        queue += [side for side in sides if side in tree]
    return groups
