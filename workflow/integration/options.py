"""Options of the integration methods, one dataclass each, and what the name of one means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union

from preprocessing.options import NormalizationOptions
from utils.errors import unknown
from utils.option_checks import column_names, numbers
from utils.options import Options, differing, key

if TYPE_CHECKING:
    from collections.abc import Iterable

# What can name a data set or a method: a folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Options):
    """What the plan has to know of every method."""

    needs_batch: ClassVar[bool] = True
    has_gpu: ClassVar[bool] = False
    # A package that is not among the pins of envs/scanpy.txt, and the file in envs/ that has it.
    package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None

    def new_obs(self, name: str) -> list[str]:
        """Return the columns of obs that the method adds under a name."""
        return []


@dataclass(frozen=True, kw_only=True)
class UnintegratedOptions(MethodOptions):
    """No correction: the basis goes on as it is, to compare with."""

    needs_batch: ClassVar[bool] = False

    method: Literal["unintegrated"] = key(
        "unintegrated", "The method behind the name.", config_only=True
    )


@dataclass(frozen=True, kw_only=True)
class EmbeddingMethodOptions(MethodOptions):
    """A method that starts from an embedding."""

    basis: str | None = key(
        None,
        "The obsm key to start from; `X_{name}` is the result of another method. "
        "Unset: `integration.basis`.",
        config_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class CountsMethodOptions(MethodOptions):
    """A method that starts from the raw counts: `X`, or the layer that `preprocessing` names."""


def _refuse_idle(options: MethodOptions, names: Iterable[str], choice: str) -> None:
    """Refuse options that were given and that another option keeps from having an effect."""
    for name in differing(type(options), options):
        if name in names:
            raise ValueError(f"{name} has no effect with {choice}; remove it")


@dataclass(frozen=True, kw_only=True)
class HarmonyOptions(EmbeddingMethodOptions):
    """Parameters of Harmony (``harmony.py``); `integration/harmony` documents each formula."""

    has_gpu: ClassVar[bool] = True

    method: Literal["harmony"] = key("harmony", "The method behind the name.", config_only=True)
    flavor: Literal["harmony2", "harmony1"] = key(
        "harmony2", "As in R's harmony 2, or the algorithm of Korsunsky 2019."
    )
    n_clusters: int | None = key(
        None, "Soft clusters. Unset: min(100, cells / 30), at least 1.", ge=1
    )
    max_iter_harmony: int | None = key(
        10, "Outer iterations at most. `null`: until convergence.", ge=1
    )
    max_iter_clustering: int = key(5, "Clustering passes per outer iteration.", ge=1)
    early_stopping: bool = key(
        False,
        "End a clustering step when the objective's sum over three passes changes by a share of "
        "less than `tol_clustering` (needs 4 passes or more).",
    )
    tol_harmony: float | None = key(
        1e-2, "Stop at this relative fall of the objective. `null`: never early.", ge=0
    )
    tol_clustering: float = key(1e-3, "Relative tolerance of `early_stopping`.", ge=0)
    sigma: float | list[float] = key(
        0.1, "Width of the soft clusters; at least 0.0001.", before=numbers
    )
    theta: float | list[float] = key(
        2.0,
        "Weight of the diversity penalty, one number or one per batch column. "
        "0 drops the penalty, not the correction.",
        before=numbers,
    )
    tau: float = key(
        0.0,
        "Discounts `theta` of small batches: theta (1 - exp(-(N_b / (K tau))^2)), as in R.",
        ge=0,
    )
    alpha: float = key(
        0.2, "Harmony 2: ridge penalty as a share of the expected cells.", gt=0, lt=1
    )
    ridge_lambda: float | list[float] | None = key(
        1.0,
        "Harmony 1: fixed ridge penalty. `null` or -1: dynamic, as in Harmony 2.",
        before=numbers,
    )
    batch_prune_threshold: float | None = key(
        1e-5,
        "Harmony 2: a batch with a smaller share of its cells in a cluster is not "
        "corrected there. `null`: off. One that leaves nothing to correct is refused.",
        ge=0,
        lt=1,
    )
    block_proportion: float = key(
        0.05,
        "Share of the cells updated together (at least 0.2 for fewer than 40 cells).",
        gt=0,
        le=1,
    )
    combine_keys: bool = key(False, "Join several batch columns into one instead of stacking them.")
    na_batch: Literal["error", "drop", "own"] = key(
        "error", "Cells without a batch: stop, leave out (NaN), or a batch of their own."
    )
    kmeans_init: Literal["random", "k-means++", "k-means||"] = key(
        "k-means++",
        "How the first clusters are found: as in R (`k-means++`), as in brisc (`random`), or by "
        "rounds of candidates.",
    )
    kmeans_iterations: int = key(25, "k-means iterations at most.", ge=1)
    kmeans_tolerance: float = key(0.01, "Relative tolerance of k-means.", ge=0)
    kmeans_cells: int | None = key(
        None,
        "Cells that k-means uses, a random sample. Unset: 256 a cluster, at least 10,000.",
        ge=1,
    )
    num_init_iterations: int = key(5, "Rounds of `k-means||`.", ge=1)
    oversampling_factor: float = key(
        1.0, "Candidates of `k-means||` over all rounds, for each cluster.", gt=0
    )
    chunk_size: int | None = key(
        None, "Cells worked on at a time. Unset: 1024, on a GPU 262,144.", ge=1
    )
    chunk_size_kmeans: int | None = key(
        None, "Cells that k-means works on at a time. Unset: 4096, on a GPU 262,144.", ge=1
    )
    dtype: Literal["float32", "float64"] = key("float32", "Working precision.")
    lean: bool | None = key(
        None,
        "Less memory for more time: similarities are computed again whenever they are needed. "
        "Unset: where they would take more than 60 % of the available memory.",
    )
    original: bool = key(False, "The published block update on one thread, to compare with.")

    def check(self) -> None:
        """Refuse options that another one leaves without effect."""
        if self.early_stopping and self.max_iter_clustering < 4:
            raise ValueError(
                "early_stopping needs max_iter_clustering of 4 or more, "
                f"found {self.max_iter_clustering}"
            )
        dynamic = self.ridge_lambda in (None, -1, [-1])
        if self.flavor == "harmony2":
            idle = [] if dynamic else ["ridge_lambda"]
        else:
            idle = ["batch_prune_threshold"] if self.batch_prune_threshold is not None else []
            idle += [] if dynamic else ["alpha"]
        _refuse_idle(self, idle, f"flavor: {self.flavor}")


@dataclass(frozen=True, kw_only=True)
class PVAEOptions(CountsMethodOptions):
    """Parameters of the Poisson variational autoencoder (``vae.py``); needs torch."""

    has_gpu: ClassVar[bool] = True
    package: ClassVar[str | None] = "torch"
    extra: ClassVar[str | None] = "vae"

    method: Literal["pvae"] = key("pvae", "The method behind the name.", config_only=True)
    latent_dim: int = key(10, "Dimensions of the embedding.", ge=1)
    hidden_dim: int = key(128, "Width of the two layers of every network.", ge=1)
    covariates: list[str] | None = key(
        None,
        "obs columns that the decoder is given, so that the embedding need not explain "
        "them: categories, or numbers where a column holds floats. Unset: `batch`.",
        before=column_names,
        names_obs=True,
    )
    max_epochs: int | None = key(
        None,
        "Passes over the cells at most. Unset: 10, and as many as make 4,000 minibatches.",
        ge=1,
    )
    batch_size: int = key(64, "Cells per minibatch.", ge=2)
    lr: float = key(1e-3, "Learning rate (RMSprop).", gt=0)
    n_samples: int = key(1, "Draws of the latent variables per cell and step.", ge=1)
    kl_warmup: float = key(
        0.25,
        "Share of the epochs during which the weight of the KL terms grows from 0 to 1.",
        ge=0,
        lt=1,
    )
    held_out: float = key(
        0.1,
        "Share of the cells that is not trained on and whose ELBO ends the training.",
        ge=0,
        lt=1,
    )
    patience: int = key(10, "Epochs without a better held-out ELBO before training ends.", ge=1)


@dataclass(frozen=True, kw_only=True)
class GMVAEOptions(PVAEOptions):
    """Parameters of the VAE with a mixture of Gaussians as its prior (``vae.py``); needs torch."""

    method: Literal["gmvae"] = key("gmvae", "The method behind the name.", config_only=True)
    label_dim: int = key(
        10,
        "Components of the mixture; the likeliest of each cell is the obs column "
        "`{name}_label`. Time grows in proportion.",
        ge=2,
    )

    def new_obs(self, name: str) -> list[str]:
        """Return the column of the likeliest component."""
        return [f"{name}_label"]


@dataclass(frozen=True, kw_only=True)
class SCVIOptions(CountsMethodOptions):
    """Parameters of scVI as scvi-tools has it (``scvi.py``); needs scvi-tools."""

    has_gpu: ClassVar[bool] = True
    package: ClassVar[str | None] = "scvi"
    extra: ClassVar[str | None] = "scvi"

    method: Literal["scvi"] = key("scvi", "The method behind the name.", config_only=True)
    n_latent: int = key(10, "Dimensions of the embedding.", ge=1)
    n_hidden: int = key(128, "Width of the hidden layers.", ge=1)
    n_layers: int = key(1, "Hidden layers of every network.", ge=1)
    gene_likelihood: Literal["zinb", "nb", "poisson"] = key(
        "zinb", "Distribution of the counts: (zero-inflated) negative binomial, or Poisson."
    )
    max_epochs: int | None = key(
        None,
        "Passes over the cells at most. Unset: 400, from 20,000 cells on 8 million / cells.",
        ge=1,
    )
    batch_size: int = key(128, "Cells per minibatch.", ge=2)
    lr: float = key(1e-3, "Learning rate (Adam).", gt=0)
    early_stopping: bool = key(
        False,
        "Stop after 45 epochs without a better ELBO of a tenth of the cells, which is not "
        "trained on.",
    )


@dataclass(frozen=True, kw_only=True)
class PairingOptions(MethodOptions):
    """How mutual nearest neighbors are found, whatever they are found in."""

    k: int = key(20, "Neighbors of a cell in the other batch.", ge=1)
    prop_k: float | None = key(
        None, "The same as a share of the batch, where that is more.", gt=0, le=1
    )
    merge_order: list[Any] | None = key(
        None,
        "Batches in the order of their merging, or a nested list of twos: "
        "`[[a, b], [c, d]]`. Unset: as sorted.",
    )
    auto_merge: bool = key(False, "Merge those with most pairs first, whatever `merge_order`.")
    restrict: str | None = key(
        None, "obs column of true and false: only true cells are paired.", names_obs=True
    )
    clusters: str | None = key(
        None,
        "obs column of preliminary clusters, for the diagnostics only. "
        "Unset: k-means within each batch.",
        names_obs=True,
    )


@dataclass(frozen=True, kw_only=True)
class SmoothingOptions(PairingOptions):
    """How cells in pairs correct all others, in an embedding."""

    ndist: float = key(3.0, "Bandwidth, in distances to the middle one of the `k` nearest.", gt=0)
    min_batch_skip: float = key(
        0.0,
        "Do not correct where the batch vectors agree less than this: 0 not at all, 1 entirely.",
        ge=0,
    )


@dataclass(frozen=True, kw_only=True)
class MNNOptions(SmoothingOptions, EmbeddingMethodOptions):
    """Mutual nearest neighbors in an embedding (``mnn.py --method mnn``)."""

    method: Literal["mnn"] = key("mnn", "The method behind the name.", config_only=True)
    cos_norm: bool = key(False, "Give every cell length 1 first.")
    project_simplex: bool = key(
        False,
        "Bring each result back to proportions, which correction makes negative; "
        "for an embedding of proportions such as `X_topics`.",
    )


@dataclass(frozen=True, kw_only=True)
class ExpressionOptions(NormalizationOptions, CountsMethodOptions):
    """A method that starts from the counts and takes logarithms itself."""


@dataclass(frozen=True, kw_only=True)
class FastMNNOptions(ExpressionOptions, SmoothingOptions):
    """Mutual nearest neighbors in components of all batches alike (``mnn.py``).

    Starts from the counts of the genes in `var/highly_variable`, or of all genes.
    """

    method: Literal["fast_mnn"] = key("fast_mnn", "The method behind the name.", config_only=True)
    n_comps: int = key(50, "Number of components.", ge=1)
    cos_norm: bool = key(True, "Give every cell length 1 first.")
    weights: dict[str, float] | None = key(
        None, "`{batch: weight}`: how much each counts in the components. Unset: alike."
    )


@dataclass(frozen=True, kw_only=True)
class MNNCorrectOptions(ExpressionOptions, PairingOptions):
    """The first MNN algorithm, on expression values (``mnn.py``); for up to 10,000 cells.

    Starts from the counts of the genes in `var/highly_variable`, or of all genes.
    """

    method: Literal["mnn_correct"] = key(
        "mnn_correct", "The method behind the name.", config_only=True
    )
    sigma: float = key(0.1, "Width of the kernel, a squared distance.", gt=0)
    cos_norm_in: bool = key(True, "Find pairs among cells of length 1.")
    cos_norm_out: bool = key(True, "Correct cells of length 1.")
    svd_dim: int = key(
        0, "Directions of the biology of each batch that are kept as they are.", ge=0
    )
    var_adj: bool = key(True, "Stretch corrections so that batches spread alike.")
    n_comps: int = key(50, "Principal components of the corrected values: the embedding.", ge=1)
    layer_added: str | None = key(
        None, "Also correct all genes, and write them as this layer (dense)."
    )


# Numbers of topics to choose from where none is given.
N_TOPICS_LADDER = (10, 15, 20, 30, 40, 60)


@dataclass(frozen=True, kw_only=True)
class TopicsOptions(CountsMethodOptions):
    """Parameters of the topic model (``topics.py``); `integration/topics` documents each."""

    needs_batch: ClassVar[bool] = False

    method: Literal["topics"] = key("topics", "The method behind the name.", config_only=True)
    model: Literal["poisson_nmf", "lda"] = key(
        "poisson_nmf", "Maximum likelihood (`poisson_nmf`), or Dirichlet priors (`lda`, slower)."
    )
    highly_variable: bool = key(True, "Only the genes of `var/highly_variable`, if it exists.")
    n_topics: int | None = key(
        None,
        "Number of topics. Unset: chosen among 10, 15, 20, 30, 40 and 60 by the deviance of "
        "held-out counts; the curve is recorded and logged.",
        ge=1,
    )
    n_restarts: int = key(
        1, "Random starts; that with the lowest deviance is kept. Not for `lda`.", ge=1
    )
    max_iter: int | None = key(None, "Iterations at most. Unset: 100, of `lda` 20.", ge=1)
    tol: float = key(
        1e-3, "Stop when less than this share of the counts is in the wrong topic.", gt=0
    )
    dtype: Literal["float32", "float64"] = key("float32", "Working precision.")
    weight_prior: float | None = key(
        None, "`lda`: concentration of a cell's weights. Unset: 1 / n_topics.", gt=0
    )
    topic_prior: float | None = key(
        None, "`lda`: concentration of a topic's genes. Unset: 1 / n_topics.", gt=0
    )
    groups: str | None = key(
        None, "The obs column that groups the cells in the structure plot.", names_obs=True
    )

    def new_obs(self, name: str) -> list[str]:
        """Return the column of the totals, whatever the name."""
        return ["topic_scale"]

    def check(self) -> None:
        """Refuse options of the model that is not chosen."""
        if self.model == "lda":
            names = ("n_restarts", "tol", "dtype")
        else:
            names = ("weight_prior", "topic_prior")
        _refuse_idle(self, names, f"model: {self.model}")


METHODS: dict[str, type[MethodOptions]] = {
    "unintegrated": UnintegratedOptions,
    "harmony": HarmonyOptions,
    "topics": TopicsOptions,
    "pvae": PVAEOptions,
    "gmvae": GMVAEOptions,
    "scvi": SCVIOptions,
    "mnn": MNNOptions,
    "fast_mnn": FastMNNOptions,
    "mnn_correct": MNNCorrectOptions,
}
Method = Union[tuple(METHODS.values())]  # noqa: UP007


def by_name(value: Any) -> Any:
    """Fill in the ``method`` that a name means; a list of names takes every default."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = dict.fromkeys(value)
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"must map a method to its parameters, such as {{harmony: {{theta: 2}}}}, "
            f"found {value!r}"
        )
    return {name: _with_method(name, params) for name, params in value.items()}


def _with_method(name: Any, params: Any) -> dict[str, Any]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a folder; use letters, digits, '_', '-', '.'")
    if params is not None and not isinstance(params, dict):
        raise ValueError(f"{name}: must map parameters to values, found {params!r}")
    params = params or {}
    method = params.get("method", name)
    if not isinstance(method, str) or method not in METHODS:
        hint = f"; for a name of your own write {{{name}: {{method: harmony}}}}"
        raise ValueError(unknown("method", method, METHODS) + hint * ("method" not in params))
    if (name == "unintegrated") != (method == "unintegrated"):
        raise ValueError(f'{name}: the name "unintegrated" and its method belong together')
    return {**params, "method": method}


@dataclass(frozen=True, kw_only=True)
class IntegrationOptions(Options):
    """How batches are brought together."""

    batch: list[str] | None = key(
        None, "The obs column that names the batch, or a list of them.", before=column_names
    )
    basis: str = key("X_pca", "The obsm key that methods without one of their own start from.")
    methods: dict[str, Method] | None = key(
        None,
        "`{method: {parameter: value}}`; a name of your own says `method:` among its "
        "parameters. Unset: `harmony` where `batch` is set, else `unintegrated`.",
        before=by_name,
    )
