"""Label scores by neighbors, and the warnings where a method loses biology."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from clustering.connectivities import neighbor_graph
from evaluation.scores.batch_mixing import neighborhoods
from evaluation.scores.biology_loss import (
    LossWarning,
    integration_losses,
    lost_types,
    warning_table,
)
from evaluation.scores.metrics import Labeling, method_metrics
from evaluation.scores.neighbor_labels import f1_scores, same_label_share, transferred_labels


def cells(seed=0, n=900, shift=3.0):
    """Three types in two batches; type 2 is in batch 1 alone."""
    rng = np.random.default_rng(seed)
    labels, batches = rng.integers(0, 3, n), rng.integers(0, 2, n)
    batches[labels == 2] = 1
    X = rng.normal(size=(n, 5)).astype(np.float32)
    X[:, 0] += shift * labels
    return X, labels, batches


def test_transfer_is_that_of_scikit_learn():
    X, labels, batches = cells()
    labels[:20], batches[20:30], X[30, 0] = -1, -1, np.nan
    predicted = transferred_labels(X, labels, batches)
    usable = (labels >= 0) & (batches >= 0) & np.isfinite(X).all(axis=1)
    assert (predicted[~usable] == -1).all()
    assert (predicted[labels == 2] == -1).all(), "no other batch has it"
    for batch in (0, 1):
        others = usable & (batches != batch)
        tested = usable & (batches == batch) & (labels != 2)
        model = KNeighborsClassifier(15).fit(X[others], labels[others])
        assert (model.predict(X[tested]) == predicted[tested]).all()
    tested = predicted >= 0
    expected = f1_score(labels[tested], predicted[tested], average=None)
    np.testing.assert_allclose(f1_scores(labels, predicted)[:2], expected[:2])


def test_neighbors_of_the_same_label():
    X, labels, _ = cells()
    near = neighborhoods(neighbor_graph(X).distances)
    labels[:50] = -1
    share = same_label_share(near, labels)
    assert np.isnan(share[:50]).all()
    neighbor_labels = labels[near.indices[100]]
    known = neighbor_labels[neighbor_labels >= 0]
    assert share[100] == pytest.approx((known == labels[100]).mean())


def scores_of(method, X, labels, batches):
    graph = neighbor_graph(X)
    label = Labeling("cell_type", labels, ["a", "b", "c"])
    return method_metrics(
        embedding=X,
        near=neighborhoods(graph.distances),
        connectivities=graph.connectivities,
        batches=[Labeling("lab", batches, ["x", "y"])],
        label=label,
    ).assign(method=method)


def test_warnings_of_a_method_that_mixes_types():
    X, labels, batches = cells()
    mixed = X.copy()
    mixed[labels == 2, 0] -= 3  # the type of one batch is moved into another type
    parts = [
        scores_of("unintegrated", X, labels, batches),
        scores_of("same", X + 1, labels, batches),
        scores_of("mixing", mixed, labels, batches),
    ]
    scores = pd.concat(parts)
    columns = Labeling("cell_type", labels, ["a", "b", "c"]), Labeling("lab", batches, ["x", "y"])
    found = integration_losses(scores) + lost_types(scores, *columns)
    assert {row.method for row in found} == {"mixing"}
    kinds = {row.warning: row for row in found}
    assert {"same_label", "one_batch_type"} <= set(kinds)
    one_batch = kinds["one_batch_type"]
    assert "cell_type c (100% of" in one_batch.where and "in y)" in one_batch.where
    assert "unintegrated" in one_batch.figure and "c (-" in kinds["same_label"].where
    assert list(warning_table(found)) == list(LossWarning._fields)
    assert warning_table([]).empty
    without = scores[scores["method"] != "unintegrated"]
    assert not integration_losses(without) and not lost_types(without, *columns)


def test_noise_is_not_warned_of():
    for seed in range(5):
        X, labels, batches = cells(seed, n=300)
        rng = np.random.default_rng(seed)
        again = X + rng.normal(scale=0.3, size=X.shape).astype(np.float32)
        scores = pd.concat([
            scores_of("unintegrated", X, labels, batches),
            scores_of("noisy", again, labels, batches),
        ])  # fmt: skip
        columns = Labeling("t", labels, ["a", "b", "c"]), Labeling("lab", batches, ["x", "y"])
        assert not integration_losses(scores) + lost_types(scores, *columns)
