"""PVAE and GMVAE: the bound term by term, training, the same bits, real data, bad input."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import INPUT
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the extra of envs/vae.txt is not installed")

from torch.distributions import Categorical, Normal, Poisson, kl_divergence

from integration.count_matrix import as_counts
from integration.vae import GMVAE, PVAE
from integration.vae.design import design, log_factorials
from integration.vae.models import normal_kl, poisson_log_likelihood, uniform_kl

SMALL = {"hidden_dim": 16}
SHORT = {"max_epochs": 3, "batch_size": 32}


def make_counts(n_cells=120, n_genes=40, n_types=3, n_batches=2, seed=0):
    """Cells of a few types whose genes the batch changes."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(n_types, size=n_cells), rng.integers(n_batches, size=n_cells)
    log_rates = (
        rng.normal(0, 1.5, (n_types, n_genes))[kind] + rng.normal(0, 0.7, (2, n_genes))[batch]
    )
    rates = np.exp(log_rates)
    rates *= rng.uniform(50, 500, (n_cells, 1)) / rates.sum(axis=1, keepdims=True)
    return sp.csr_matrix(rng.poisson(rates).astype(np.float32)), batch


COUNTS, BATCH = make_counts()
DESIGN = design({"batch": BATCH.astype(str)})


def make_model(kind, **options):
    labels = {"label_dim": 4} if kind is GMVAE else {}
    return kind(COUNTS.shape[1], 3, 2, **labels, **SMALL, **options)


# ---------------------------------------------------------------- the bound


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_every_term_is_that_of_torch_distributions(seed):
    torch.manual_seed(seed)
    x = torch.poisson(50 * torch.rand(6, 9, dtype=torch.float64))
    x[:, 0] += 1  # a cell without counts takes no part
    log_rates = torch.log_softmax(3 * torch.randn(2, 6, 9, dtype=torch.float64), -1)
    expected = Poisson(x.sum(-1, keepdim=True) * log_rates.exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(poisson_log_likelihood(x, log_rates), expected)
    sums = torch.from_numpy(log_factorials(sp.csr_matrix(x.numpy())))
    torch.testing.assert_close(
        poisson_log_likelihood(x, log_rates, sums), expected, rtol=1e-6, atol=0
    )

    mean, prior_mean = torch.randn(2, 6, 4, dtype=torch.float64)
    scale, prior_scale = 3 * torch.rand(2, 6, 4, dtype=torch.float64) + 0.01
    expected = kl_divergence(Normal(mean, scale), Normal(prior_mean, prior_scale)).sum(-1)
    torch.testing.assert_close(normal_kl(mean, scale, prior_mean, prior_scale), expected)

    logits = 3 * torch.randn(6, 5, dtype=torch.float64)
    uniform = Categorical(torch.ones(6, 5, dtype=torch.float64))
    expected = kl_divergence(Categorical(logits=logits), uniform)
    torch.testing.assert_close(uniform_kl(torch.log_softmax(logits, -1)), expected)


def minibatch(n=8):
    x = torch.from_numpy(COUNTS[:n].toarray()).double()
    return x, torch.from_numpy(DESIGN[:n].toarray()).double()


def test_the_bound_of_pvae_is_its_definition():
    model = make_model(PVAE).double().eval()
    x, c = minibatch()
    found = model(x, c, n_samples=3, generator=torch.Generator().manual_seed(5))
    mean, scale = model.encoder(torch.log1p(x))
    q = Normal(mean, scale)
    noise = torch.randn((3, *mean.shape), generator=torch.Generator().manual_seed(5))
    rates = [model.decoder(torch.cat([mean + scale * e, c], 1)).exp() for e in noise]
    torch.testing.assert_close(rates[0].sum(1), torch.ones(8, dtype=torch.float64))
    likelihood = [Poisson(x.sum(1, keepdim=True) * r).log_prob(x).sum(1) for r in rates]
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = sum(likelihood) / 3 - kl_divergence(q, prior).sum(1)
    torch.testing.assert_close(found.total(), expected)


def test_the_bound_of_gmvae_sums_over_every_label():
    model = make_model(GMVAE).double().eval()
    with torch.no_grad():  # priors that differ in scale as well
        model.prior_raw_scale.add_(torch.randn_like(model.prior_raw_scale))
    x, c = minibatch()
    found = model(x, c, generator=torch.Generator().manual_seed(5))
    pi = model.label_probabilities(x)
    noise = torch.randn((8, 3), generator=torch.Generator().manual_seed(5))
    prior_scales = torch.nn.functional.softplus(model.prior_raw_scale) + 1e-4
    expected = -kl_divergence(Categorical(pi), Categorical(torch.ones_like(pi)))
    for label in range(4):
        shift = model.label_shift[label : label + 1]
        mean, scale = (part[0] for part in model.encoder(torch.log1p(x), shift))
        rates = model.decoder(torch.cat([mean + scale * noise, c], 1)).exp()
        likelihood = Poisson(x.sum(1, keepdim=True) * rates).log_prob(x).sum(1)
        prior = Normal(model.prior_mean[label], prior_scales[label])
        kl = kl_divergence(Normal(mean, scale), prior).sum(1)
        expected = expected + pi[:, label] * (likelihood - kl)
    torch.testing.assert_close(found.total(), expected)


@pytest.mark.parametrize("kind", [PVAE, GMVAE])
def test_the_gradient_is_that_of_finite_differences(kind):
    model = make_model(kind).double().eval()
    x, c = minibatch()

    def bound():
        return model(x, c, generator=torch.Generator().manual_seed(1)).total(0.7).mean()

    bound().backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(2)
        ).double()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * step * direction)
                ends.append(bound())
                parameter.add_(-sign * step * direction)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), slope, rtol=1e-4, atol=1e-4, msg=name
        )


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("kind", [PVAE, GMVAE])
def test_training_raises_the_bound_and_is_the_same_to_the_bit(kind):
    inputs = (COUNTS, COUNTS.toarray(), COUNTS.astype(np.int64), COUNTS)
    designs = (DESIGN, DESIGN.toarray(), DESIGN, DESIGN)
    latents, histories = [], []
    before = torch.get_num_threads()
    for counts, covariates, threads in zip(inputs, designs, (1, 1, 2, 4), strict=True):
        torch.set_num_threads(threads)
        model = make_model(kind).fit(counts, covariates, **SHORT)
        latents.append(model.latent(counts))
        histories.append(model.history)
    torch.set_num_threads(before)
    first = histories[0]
    assert [record["epoch"] for record in first] == [1, 2, 3]
    assert first[-1]["elbo"] > first[0]["elbo"] + 5
    for other, history in zip(latents[1:], histories[1:], strict=True):
        np.testing.assert_array_equal(latents[0], other)
        assert history == first
    assert latents[0].dtype == np.float32
    assert latents[0].shape == (120, 3)
    seeded = make_model(kind, seed=1).fit(COUNTS, DESIGN, seed=1, **SHORT).latent(COUNTS)
    assert (seeded != latents[0]).any()


def test_training_leaves_the_random_numbers_and_threads_of_torch_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    make_model(PVAE).fit(COUNTS, DESIGN, **SHORT)
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [PVAE, GMVAE])
def test_a_cell_is_embedded_the_same_whatever_is_beside_it(kind):
    model = make_model(kind).fit(COUNTS, DESIGN, **SHORT)
    whole = model.latent(COUNTS)
    np.testing.assert_allclose(model.latent(COUNTS[5:7]), whole[5:7], atol=1e-5)
    if kind is GMVAE:
        probabilities = model.probabilities(COUNTS)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_best_epoch_on_held_out_cells_is_kept():
    counts, batch = make_counts(n_cells=300, seed=1)
    covariates = design({"batch": batch.astype(str)})
    records, weights = [], []
    model = make_model(PVAE)

    def watch(record):
        records.append(record)
        weights.append(model.decoder.logits.bias.detach().clone())

    model.fit(counts, covariates, max_epochs=200, lr=0.02, patience=3, on_epoch=watch)
    found = [record["held_out_elbo"] for record in records]
    best = int(np.argmax(found))
    assert 50 <= len(found) < 200, "stops early, not before the warm-up ends"
    assert len(found) > best + 1
    assert torch.equal(model.decoder.logits.bias, weights[best])
    assert not torch.equal(model.decoder.logits.bias, weights[-1])
    assert model.history == records


def test_without_held_out_cells_all_epochs_run():
    model = make_model(PVAE).fit(COUNTS, DESIGN, held_out=0, patience=1, max_epochs=4)
    assert len(model.history) == 4
    assert "held_out_elbo" not in model.history[0]


def test_rates_start_at_the_mean_proportions():
    model = make_model(PVAE)
    totals = np.r_[0, np.arange(1, COUNTS.shape[1])].astype(float)
    model.decoder.start_at(totals)
    start = torch.softmax(model.decoder.logits.bias, 0).detach().numpy()
    np.testing.assert_allclose(start[1:] / start[1], totals[1:], rtol=1e-5)
    assert 0 < start[0] < start[1]


# ---------------------------------------------------------------- real data


def neighborhood(Z, labels, k=30):
    """Mean effective number of labels among the nearest cells (LISI, each neighbor counting 1)."""
    codes = pd.factorize(labels)[0]
    distances = ((Z[:, None] - Z[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = codes[np.argsort(distances, axis=1)[:, :k]]
    shares = np.stack([(near == code).mean(axis=1) for code in np.unique(codes)])
    return (1 / (shares**2).sum(axis=0)).mean()


@pytest.fixture(scope="module")
def pancreas():
    return anndata.read_h5ad(INPUT / "pancreas_mini.h5ad")


@pytest.fixture(scope="module")
def uncorrected(pancreas):
    values = pancreas.X.toarray()
    values = np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))
    left, singular, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    return (left * singular)[:, :10]


@pytest.mark.parametrize("kind", [PVAE, GMVAE])
def test_batches_mix_and_cell_types_stay(kind, pancreas, uncorrected):
    batch, types = pancreas.obs["batch"], pancreas.obs["cell_type"]
    covariates = design({"batch": batch})
    labels = {"label_dim": 5} if kind is GMVAE else {}
    model = kind(pancreas.n_vars, 10, covariates.shape[1], **labels, hidden_dim=64)
    model.fit(pancreas.X, covariates, max_epochs=20 if labels else 40, lr=2e-3)
    Z = model.latent(pancreas.X)
    assert neighborhood(Z, batch) > 1.2 * neighborhood(uncorrected, batch)
    assert neighborhood(Z, types) < 1.1 * neighborhood(uncorrected, types)
    if labels:
        found = model.probabilities(pancreas.X).argmax(axis=1)
        assert agreement(found, types) > 2 * agreement(found, batch)


def agreement(a, b):
    """Mutual information."""
    joint = pd.crosstab(np.asarray(a), np.asarray(b), normalize=True).to_numpy()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    return (joint * np.log(np.where(joint > 0, joint / apart, 1))).sum()


# ---------------------------------------------------------------- input


def spoil(value):
    spoiled = COUNTS.toarray()
    spoiled[7, 3] = value
    return spoiled


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"counts": spoil(-1)}, ValueError, "cell 7, gene 3 .* 0 or more, found -1"),
        ({"counts": spoil(np.nan)}, ValueError, "cell 7, gene 3 .* found nan"),
        ({"counts": spoil(np.inf)}, ValueError, "cell 7, gene 3 .* found inf"),
        ({"counts": spoil(1).astype(int) - 2}, ValueError, "cell 0, gene 0 .* found -2|found -1"),
        ({"counts": spoil(1).astype(complex)}, TypeError, "real numbers; found complex"),
        ({"counts": COUNTS[:, :5]}, ValueError, "5 genes, the model has 40"),
        ({"counts": [1, 2]}, ValueError, "matrix of cells x genes; found list"),
        ({"counts": 0 * COUNTS}, ValueError, "0 of 120 cells have a count"),
        ({"covariates": DESIGN[:9]}, ValueError, r"120 cells x 2 columns; found \(9, 2\)"),
        ({"covariates": None}, ValueError, r"120 cells x 2 columns; found \(120, 0\)"),
        ({"covariates": np.full((120, 2), np.nan)}, ValueError, "not finite"),
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1, found 0"),
        ({"batch_size": 1}, ValueError, "batch_size must be at least 2, found 1"),
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"lr": 0}, ValueError, "lr must be above 0"),
        ({"lr": 1e30}, ValueError, "ELBO is .* lr 1e.30 is too large"),
        ({"kl_warmup": 1}, ValueError, "kl_warmup must be at least 0 and less than 1"),
        ({"held_out": -0.1}, ValueError, "held_out must be at least 0 and less than 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_input_is_one_clear_line(changes, error, message):
    arguments = {"counts": COUNTS, "covariates": DESIGN, **SHORT, **changes}
    model = make_model(PVAE)
    with pytest.raises(error, match=message) as caught:
        model.fit(arguments.pop("counts"), arguments.pop("covariates"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PVAE(0), "input_dim is too small: 0"),
        (lambda: PVAE(5, latent_dim=0), "latent_dim is too small: 0"),
        (lambda: PVAE(5, covar_dim=-1), "covar_dim is too small: -1"),
        (lambda: GMVAE(5, label_dim=1), "label_dim must be at least 2, found 1"),
        (
            lambda: GMVAE(40, label_dim=7, **SMALL).fit(COUNTS[:6]),
            "label_dim is 7 but only 6 cells have a count",
        ),
    ],
)
def test_sizes_that_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_cells_without_counts_are_left_out_and_nan():
    counts = COUNTS.copy().tolil()
    counts[[4, 90]] = 0
    model = make_model(GMVAE)
    with pytest.warns(UserWarning, match="2 of 120 cells have no count"):
        model.fit(counts.tocsr(), DESIGN, **SHORT)
    for found in (model.latent(counts), model.probabilities(counts)):
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(found).any(axis=1)), [4, 90])
    keep = np.delete(np.arange(120), [4, 90])
    alone = make_model(GMVAE).fit(COUNTS[keep], DESIGN[keep], **SHORT)
    assert len(alone.history) == len(model.history)


def test_design_of_several_covariates():
    age = np.linspace(20, 60, 6)
    labels = pd.Categorical(["b", "a", "b", "c", "a", "b"], categories=["c", "unused", "b", "a"])
    found = design({"batch": labels, "age": age, "chip": [1, 1, 2, 2, 1, 2]}).toarray()
    assert found.shape == (6, 3 + 1 + 2)
    np.testing.assert_array_equal(found[:, 0], [0, 1, 0, 0, 1, 0])  # "a"
    np.testing.assert_array_equal(found[:, :3].sum(axis=1), 1)
    np.testing.assert_allclose([found[:, 3].mean(), found[:, 3].std()], [0, 1], atol=1e-6)
    np.testing.assert_array_equal(found[:, 4], [1, 1, 0, 0, 1, 0])


def test_one_batch_is_an_embedding_without_covariates():
    with pytest.warns(UserWarning, match='"batch" has only one value'):
        covariates = design({"batch": ["a"] * 120})
    assert covariates.shape == (120, 0)
    model = PVAE(COUNTS.shape[1], 3, **SMALL).fit(COUNTS, covariates, **SHORT)
    assert np.isfinite(model.latent(COUNTS)).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"batch": ["a", None, "b"]}, '"batch" is missing for 1 of 3 cells'),
        ({"age": [1.5, np.nan, 2]}, '"age" is missing for 1 of 3 cells'),
        ({"age": [1.5, np.inf, 2]}, '"age" holds numbers that are not finite'),
        ({"cell": ["a", "b", "c"]}, '"cell" has a level for each of the 3 cells'),
        ({"a": ["x", "y", "x"], "b": ["x", "y", "x", "y", "x"]}, r"differ in length: \[3, 5\]"),
    ],
)
def test_covariates_that_cannot_be(columns, message):
    with pytest.raises(ValueError, match=message):
        design(columns)


def test_counts_keep_their_memory():
    assert np.shares_memory(as_counts(COUNTS).data, COUNTS.data)
