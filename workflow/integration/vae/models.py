"""The two models and their evidence lower bounds (ELBO).

For cell i, gene j, with counts x, their total s and covariates c::

    x_ij | z_i, c_i ~ Poisson(s_i λ_j(z_i, c_i)),  λ = softmax(network([z, c])), so Σ_j λ_j = 1
    PVAE:   z_i ~ N(0, 1);              q(z_i | x_i) = N(m(x_i), sigma^2(x_i))
    GMVAE:  y_i uniform on M labels, z_i | y_i ~ N(μ_y, sigma_y^2);
            q(y_i | x_i) = π(x_i), q(z_i | x_i, y_i) = N(m(x_i, y_i), sigma^2(x_i, y_i))

The encoders see log1p(x) and not c: what c explains, z need not. Rates that sum to 1 make s the
cell's total and nothing else, where free rates would let s λ trade scale for scale. GMVAE is the
unsupervised relative of the model of Kingma et al. 2014 (Semi-supervised learning with deep
generative models), with every label enumerated: its bound over y is exact, without sampling noise.

Everything works on minibatches: x (cells, genes) and c (cells, covariates) are dense float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from integration.options import GMVAEOptions, PVAEOptions
from integration.vae.training import fit, latent, probabilities

if TYPE_CHECKING:
    from torch import Tensor


class Elbo(NamedTuple):
    """The parts of the bound, one number per cell: log_likelihood - kl_z - kl_y."""

    log_likelihood: Tensor
    kl_z: Tensor
    kl_y: Tensor

    def total(self, kl_weight: float = 1.0) -> Tensor:
        """Return the bound, shape (cells,); below 1 the weight warms the model up."""
        return self.log_likelihood - kl_weight * (self.kl_z + self.kl_y)


def poisson_log_likelihood(
    x: Tensor, log_rates: Tensor, log_factorials: Tensor | None = None
) -> Tensor:
    """Σ_j log Poisson(x_j; s λ_j) with s = Σ_j x_j and Σ_j λ_j = 1.

    Parameters
    ----------
    x
        Counts, (cells, genes).
    log_rates
        log λ, (..., cells, genes).
    log_factorials
        Σ_j log Γ(x_j + 1), (cells,), where it is known: it takes as long as a layer.

    Returns
    -------
    torch.Tensor, (..., cells)
        Σ_j [x_j log(s λ_j) - s λ_j - log Γ(x_j + 1)]; what is in s alone sums to s log s - s.
    """
    if log_factorials is None:
        log_factorials = torch.lgamma(x + 1).sum(-1)
    s = x.sum(-1)
    return (x * log_rates).sum(-1) + torch.special.xlogy(s, s) - s - log_factorials


def normal_kl(mean: Tensor, scale: Tensor, prior_mean: Tensor, prior_scale: Tensor) -> Tensor:
    """KL(N(m, sigma^2) ‖ N(μ, tau^2)), summed over the last axis.

    Σ_d [log(tau/sigma) + (sigma^2 + (m - μ)^2) / (2 tau^2) - ½]
    """
    spread = (scale.square() + (mean - prior_mean).square()) / (2 * prior_scale.square())
    return (torch.log(prior_scale) - torch.log(scale) + spread - 0.5).sum(-1)


def uniform_kl(log_probabilities: Tensor) -> Tensor:
    """KL(π ‖ uniform on M labels) = Σ_y π_y log π_y + log M, over the last axis."""
    entropy = (log_probabilities.exp() * log_probabilities).sum(-1)
    return entropy + math.log(log_probabilities.shape[-1])


class PVAE(nn.Module):
    """Poisson variational autoencoder.

    Parameters
    ----------
    input_dim
        Number of genes.
    latent_dim
        Dimensions of the embedding.
    covar_dim
        Columns of the covariates (see `design.design`).
    hidden_dim
        Width of the two layers of every network.
    seed
        Of the initial weights.

    Raises
    ------
    ValueError
        If a size is below 1 (``covar_dim``: 0).
    """

    label_dim = 0

    def __init__(
        self,
        input_dim: int,
        latent_dim: int = PVAEOptions.latent_dim,
        covar_dim: int = 0,
        hidden_dim: int = PVAEOptions.hidden_dim,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"input_dim": input_dim, "latent_dim": latent_dim, "hidden_dim": hidden_dim}
        for name, size in [*sizes.items(), ("covar_dim", covar_dim + 1)]:
            if size < 1:
                raise ValueError(f"{name} is too small: {size - (name == 'covar_dim')}")
        self.input_dim, self.latent_dim, self.covar_dim = input_dim, latent_dim, covar_dim
        self.history: list[dict[str, float]] = []
        with torch.random.fork_rng(devices=[]):  # leave the caller's random numbers alone
            torch.manual_seed(seed)
            self._build(hidden_dim)

    def _build(self, hidden_dim: int) -> None:
        self.encoder = _Gaussian(self.input_dim, self.latent_dim, hidden_dim)
        self.decoder = _LogRates(self.latent_dim + self.covar_dim, self.input_dim, hidden_dim)

    def forward(
        self,
        x: Tensor,
        covariates: Tensor,
        log_factorials: Tensor | None = None,
        *,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Return the parts of the ELBO, (cells,) each, from `n_samples` draws of z per cell."""
        mean, scale = self.encoder(torch.log1p(x))
        z = _draw(mean, scale, n_samples, generator)
        log_likelihood = self._log_likelihood(x, z, covariates, log_factorials)
        kl_z = normal_kl(mean, scale, mean.new_zeros(()), mean.new_ones(()))
        return Elbo(log_likelihood, kl_z, torch.zeros_like(kl_z))

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z | x], (cells, latent_dim)."""
        return self.encoder(torch.log1p(x))[0]

    def _log_likelihood(
        self, x: Tensor, z: Tensor, covariates: Tensor, log_factorials: Tensor | None
    ) -> Tensor:
        """Mean of log p(x | z, c) over the draws of z, the first axis."""
        c = covariates.expand(*z.shape[:-1], -1)
        log_rates = self.decoder(torch.cat([z, c], -1))
        return poisson_log_likelihood(x, log_rates, log_factorials).mean(0)

    fit = fit
    latent = latent


class GMVAE(PVAE):
    """Poisson variational autoencoder with a mixture of Gaussians as the prior of z.

    Parameters
    ----------
    label_dim
        Number M of mixture components, at least 2. Time grows in proportion.
    input_dim, latent_dim, covar_dim, hidden_dim, seed
        As for `PVAE`.

    Notes
    -----
    The networks of the prior map a one-hot label to μ_y and sigma_y; they are tables of M rows.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int = PVAEOptions.latent_dim,
        covar_dim: int = 0,
        label_dim: int = GMVAEOptions.label_dim,
        hidden_dim: int = PVAEOptions.hidden_dim,
        *,
        seed: int = 0,
    ) -> None:
        if label_dim < 2:
            raise ValueError(f"label_dim must be at least 2, found {label_dim}; PVAE has no labels")
        self.label_dim = label_dim
        super().__init__(input_dim, latent_dim, covar_dim, hidden_dim, seed=seed)

    def _build(self, hidden_dim: int) -> None:
        super()._build(hidden_dim)
        n_labels, n_dims = self.label_dim, self.latent_dim
        self.classifier = nn.Sequential(
            _Network(self.input_dim, hidden_dim), nn.Linear(hidden_dim, n_labels)
        )
        # What a one-hot label adds to the encoder's first layer. Small at first, so that labels
        # are told apart by their priors; larger, a few of them take all cells.
        self.label_shift = nn.Parameter(0.1 * torch.randn(n_labels, hidden_dim))
        self.prior_mean = nn.Parameter(torch.randn(n_labels, n_dims))
        self.prior_raw_scale = nn.Parameter(torch.full((n_labels, n_dims), math.log(math.e - 1)))

    def forward(
        self,
        x: Tensor,
        covariates: Tensor,
        log_factorials: Tensor | None = None,
        *,
        n_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Return the parts of the ELBO, (cells,) each; the sum over labels is exact."""
        seen = torch.log1p(x)
        log_pi = torch.log_softmax(self.classifier(seen), -1)
        pi = log_pi.exp().T  # (labels, cells)
        mean, scale = self.encoder(seen, self.label_shift)  # (labels, cells, latent_dim)
        z = _draw(mean, scale, n_samples, generator)
        log_likelihood = self._log_likelihood(x, z, covariates, log_factorials)
        prior_scale = _positive(self.prior_raw_scale)[:, None]
        kl_z = normal_kl(mean, scale, self.prior_mean[:, None], prior_scale)
        return Elbo((pi * log_likelihood).sum(0), (pi * kl_z).sum(0), uniform_kl(log_pi))

    def posterior_mean(self, x: Tensor) -> Tensor:
        """E[z | x] = Σ_y π_y(x) m(x, y), (cells, latent_dim)."""
        mean, _ = self.encoder(torch.log1p(x), self.label_shift)
        return (self.label_probabilities(x).T[..., None] * mean).sum(0)

    def label_probabilities(self, x: Tensor) -> Tensor:
        """π(x), (cells, labels)."""
        return torch.softmax(self.classifier(torch.log1p(x)), -1)

    probabilities = probabilities


# ---------------------------------------------------------------- networks


def _draw(mean: Tensor, scale: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Draw z = m + sigma ε, (n, *mean.shape), so that the gradient reaches m and sigma."""
    # On the CPU: the same noise on every device. And the same for every label: the differences
    # between labels, from which π learns, are then free of most of it.
    noise = torch.randn((n, *[1] * (mean.ndim - 2), *mean.shape[-2:]), generator=generator)
    noise = noise.to(mean.device)
    return mean + scale * noise


def _positive(raw: Tensor) -> Tensor:
    """Softplus, kept off 0 so that no logarithm overflows."""
    return nn.functional.softplus(raw) + 1e-4


class _Network(nn.Module):
    """Two fully connected layers, each with batch normalization and ReLU."""

    def __init__(self, n_in: int, hidden_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, hidden_dim)
        self.rest = nn.Sequential(
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        h = self.first(x)
        if shift is not None:  # one copy of the cells per label
            h = h + shift[:, None]
        return self.rest(h.flatten(0, -2)).unflatten(0, h.shape[:-1])


class _Gaussian(nn.Module):
    """Mean and scale of the latent variables of every cell."""

    def __init__(self, n_in: int, n_out: int, hidden_dim: int) -> None:
        super().__init__()
        self.network = _Network(n_in, hidden_dim)
        self.mean = nn.Linear(hidden_dim, n_out)
        self.raw_scale = nn.Linear(hidden_dim, n_out)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self.network(x, shift)
        return self.mean(h), _positive(self.raw_scale(h))


class _LogRates(nn.Module):
    """log λ of every gene, a log-softmax."""

    def __init__(self, n_in: int, n_genes: int, hidden_dim: int) -> None:
        super().__init__()
        self.network = _Network(n_in, hidden_dim)
        self.logits = nn.Linear(hidden_dim, n_genes)

    @torch.no_grad()
    def start_at(self, gene_totals: np.ndarray) -> None:
        """Start at the mean proportions: b_j = log of gene j's share (half a count at least)."""
        smoothed = np.maximum(gene_totals, 0.5)
        self.logits.bias.copy_(torch.from_numpy(np.log(smoothed / smoothed.sum())))

    def forward(self, z: Tensor) -> Tensor:
        return torch.log_softmax(self.logits(self.network(z)), -1)
