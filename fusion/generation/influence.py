"""How much a candidate sample lowers the validation loss of a trained model (FuseGen, section 3.3; ProGen).

    I(z) = - 1/|V| sum over v in V of  grad L_rce(v)^T  H^-1  grad l_ce(z)

Negative means helpful: adding z lowers the loss. The validation samples are synthetic and may be
mislabelled, hence the noise-robust reverse cross-entropy L_rce = const + (1 - p_y). The last layer alone
has a closed form that needs no gradient pass (`last_layer`); functions of the type `GradientInfluence` use
all trainable parameters of a torch model, in evaluation mode. All methods use one vector, the mean
validation gradient, and one set of curvature samples for all candidates, so that scores of samples of
different origin compare.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import exp, log
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from scipy.sparse.linalg import LinearOperator, cg

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Features = NDArray[np.float64] | csr_matrix
V = TypeVar("V", float, NDArray[np.float64], "torch.Tensor")
SUNGEN_SLOPE = 10.0
AUTHORS_DEPTH = 102


def rce(p_y: ArrayLike, n_classes: int, label_logit: float = 1.0) -> Floats:
    """Reverse cross-entropy against softmax(label_logit * one-hot): const + label_logit (1 - p_y).

    1 is ProGen's and FuseGen's label logit, 10 is SunGen's.
    """
    const = log(exp(label_logit) + n_classes - 1) - label_logit
    return np.asarray(const + label_logit * (1 - np.asarray(p_y, np.float64)))


def last_layer(
    h_z: Features,
    p_z: Floats,
    y_z: ArrayLike,
    h_v: Features,
    p_v: Floats,
    y_v: ArrayLike,
    *,
    bias: bool = True,
) -> Floats:
    """I (R,) with H = 1 over a softmax layer: the mean over v of -(a_z . b_v)(h_z . h_v + bias), with
    a_z = p_z - onehot(y_z) and b_v = -p_v[y_v] (onehot(y_v) - p_v).

    Features h are (R, d) and (V, d), dense or CSR; probabilities p are (R, C) and (V, C).
    """
    weight, offset = _validation_gradient(h_v, p_v, np.asarray(y_v), bias)
    return -_candidate_dot(h_z, p_z, np.asarray(y_z), weight, offset)


def last_layer_hessian(
    h_z: Features,
    p_z: Floats,
    y_z: ArrayLike,
    h_v: Features,
    p_v: Floats,
    y_v: ArrayLike,
    *,
    damping: float = 1e-2,
    bias: bool = True,
) -> Floats:
    """As `last_layer` with H = damping + the Hessian of the mean cross-entropy over candidates and validation
    samples, which for a softmax layer is its Gauss-Newton matrix and so never negative: one damped solve of
    size C (d + 1) by conjugate gradients, without forming H."""
    weight, offset = _validation_gradient(h_v, p_v, np.asarray(y_v), bias)
    blocks = [(h_z, np.asarray(p_z)), (h_v, np.asarray(p_v))]
    shape, split = weight.shape, weight.size
    n = len(p_z) + len(p_v)

    def times(flat: Floats) -> Floats:
        direction, shift = flat[:split].reshape(shape), flat[split:]
        result, moved = damping * direction, damping * shift
        for h, p in blocks:
            logits = np.asarray(h @ direction.T) + bias * shift
            pulled = p * (logits - (p * logits).sum(axis=1, keepdims=True)) / n
            result = result + np.asarray(h.T @ pulled).T
            moved = moved + bias * pulled.sum(axis=0)
        return np.concatenate([result.ravel(), moved])

    target = np.concatenate([weight.ravel(), offset])
    solution, failed = cg(LinearOperator((len(target),) * 2, matvec=times), target, rtol=1e-8)
    if failed:
        raise FloatingPointError("the damped last-layer system was not solved; raise the damping")
    return -_candidate_dot(h_z, p_z, np.asarray(y_z), solution[:split].reshape(shape), solution[split:])


def last_layer_of_spans(g_z: Floats, g_v: Floats, p_v: Floats) -> Floats:
    """I (R,) with H = 1 over the two rows of a layer that scores every token as a start and as an end:
    -1/|V| sum over v and k of p_vk (g_vk . g_zk).

    g (R, 2, d) and (V, 2, d) are gradients of the two cross-entropies in their rows, the mean state of the
    tokens under the prediction minus the state of the right one; p_v (V, 2) are the probabilities of the
    right tokens, since L_rce = const + (1 - p_start) + (1 - p_end).
    """
    if not len(g_v):
        raise ValueError("influence needs validation samples")
    if not (np.isfinite(g_z).all() and np.isfinite(g_v).all() and np.isfinite(p_v).all()):
        raise ValueError("features and probabilities must be finite numbers")
    mean = (p_v[:, :, None] * g_v).mean(axis=0)
    return np.asarray(-(g_z * mean).sum(axis=(1, 2)))


def inverse_hvp(hvp: Callable[[V, int], V], v: V, damping: float, scale: float, steps: int) -> V:
    """LiSSA (Agarwal et al. 2017): h <- v + (1 - damping) h - H h / scale, `steps` times from h = v; the
    result h / scale tends to (damping scale + H)^-1 v. `hvp(h, t)` multiplies by the Hessian sample of step
    t."""
    h = v
    for step in range(steps):
        h = v + (1 - damping) * h - hvp(h, step) / scale
    return h / scale


@dataclass(frozen=True)
class Probe:
    """A trained torch model as influence sees it."""

    module: "torch.nn.Module"
    """Holds the parameters; those that require gradients count."""
    encode: "Callable[[Indices], torch.Tensor]"
    """Indices of samples to their logits (B, C), or (B, k, C) where k labels are asked for at once."""
    labels: NDArray[np.int_]
    """The label asked for, (n,) or (n, k), of every sample that an index may name."""
    batch_size: int = 16
    """Samples per pass where gradients are only summed."""


GradientInfluence = Callable[[Probe, ArrayLike, ArrayLike], Floats]
"""Probe, indices of candidates (R,) and of validation samples (V,) to I (R,); options are keywords, bound
by functools.partial."""


def gradient_dot(probe: Probe, candidates: ArrayLike, validation: ArrayLike) -> Floats:
    """H = 1: V + R gradients."""
    with _evaluating(probe):
        return _scores(probe, _indices(candidates), _mean_gradient(probe, _indices(validation)))


def lissa(
    probe: Probe,
    candidates: ArrayLike,
    validation: ArrayLike,
    *,
    damping: float = 1e-2,
    scale: float = 100.0,
    steps: int = 20,
    samples: ArrayLike | None = None,
) -> Floats:
    """One LiSSA chain on the mean validation gradient, with the Hessian of the cross-entropy on batches of
    `samples` in turn (default: the candidates). `scale` must exceed half its largest eigenvalue."""
    order = _indices(candidates if samples is None else samples)
    size = min(probe.batch_size, len(order))
    with _evaluating(probe):
        v = _mean_gradient(probe, _indices(validation))

        def hvp(h: "torch.Tensor", step: int) -> "torch.Tensor":
            batch = np.take(order, step * size + np.arange(size), mode="wrap")
            return _hessian_vector(probe, _ce(probe, batch).mean(), h)

        h = inverse_hvp(hvp, v, damping, scale, steps)
        if not h.isfinite().all():
            raise FloatingPointError(f"LiSSA diverged; raise scale above {scale:g}")
        return _scores(probe, _indices(candidates), h)


def tracin(
    probe: Probe,
    candidates: ArrayLike,
    validation: ArrayLike,
    *,
    checkpoints: Sequence[Mapping[str, Any]] | None = None,
    rates: Sequence[float] | None = None,
) -> Floats:
    """TracIn (Pruthi et al. 2020): the sum of gradient dots over checkpoints (state dicts of the module),
    times their learning rates. Without checkpoints the present parameters are the only one; they are put
    back."""
    if not checkpoints:
        return gradient_dot(probe, candidates, validation)
    present = {name: value.detach().clone() for name, value in probe.module.state_dict().items()}
    total = np.zeros(len(_indices(candidates)))
    try:
        for state, rate in zip(checkpoints, rates or [1.0] * len(checkpoints), strict=True):
            probe.module.load_state_dict(state)
            total += rate * gradient_dot(probe, candidates, validation)
    finally:
        probe.module.load_state_dict(present)
    return total


def per_sample_lissa(
    probe: Probe,
    candidates: ArrayLike,
    validation: ArrayLike,
    *,
    damping: float = 5e-3,
    scale: float = 1e4,
    decay: float = 5e-3,
) -> Floats:
    """The authors' computation, for comparison of cost only: one chain per validation sample, the Hessian of
    the reverse cross-entropy plus decay |theta|^2 on one candidate at a time."""
    order = _indices(candidates)
    depth = min(len(order), AUTHORS_DEPTH)
    with _evaluating(probe):

        def hvp(h: "torch.Tensor", step: int) -> "torch.Tensor":
            return _hessian_vector(probe, _rce(probe, order[[step]]).mean(), h) + 2 * decay * h

        gradients = (_mean_gradient(probe, v[None]) for v in _indices(validation))
        chains = [_scores(probe, order, inverse_hvp(hvp, g, damping, scale, depth)) for g in gradients]
        return np.asarray(np.mean(chains, axis=0))


def _validation_gradient(h: Features, p: Floats, y: NDArray[np.int_], bias: bool) -> tuple[Floats, Floats]:
    """The mean of grad L_rce over a softmax layer: weight (C, d) and offset (C,)."""
    if not len(y):
        raise ValueError("influence needs validation samples")
    p_y = np.asarray(p)[np.arange(len(y)), y][:, None]
    b = -p_y * (np.eye(p.shape[1])[y] - p) / len(y)
    return np.asarray(h.T @ b).T, bias * b.sum(axis=0)


def _candidate_dot(h: Features, p: Floats, y: NDArray[np.int_], weight: Floats, offset: Floats) -> Floats:
    values = h.data if issparse(h) else h
    if not (np.isfinite(values).all() and np.isfinite(p).all()):
        raise ValueError("features and probabilities must be finite numbers")
    a = p - np.eye(p.shape[1])[y]
    return np.asarray((a * (np.asarray(h @ weight.T) + offset)).sum(axis=1))


@contextmanager
def _evaluating(probe: Probe) -> Iterator[None]:
    training = probe.module.training
    probe.module.eval()
    try:
        yield
    finally:
        probe.module.train(training)


def _parameters(probe: Probe) -> "list[torch.Tensor]":
    return [parameter for parameter in probe.module.parameters() if parameter.requires_grad]


def _indices(samples: ArrayLike) -> Indices:
    return np.asarray(samples, np.int64)


def _each_ce(probe: Probe, samples: Indices) -> "torch.Tensor":
    """(B, k): the cross-entropies of each sample's labels."""
    import torch  # takes more than a second, and the closed forms need it not

    logits = probe.encode(samples)
    labels = torch.as_tensor(probe.labels[samples], dtype=torch.long, device=logits.device)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return losses.reshape(len(samples), -1)


def _ce(probe: Probe, samples: Indices) -> "torch.Tensor":
    return _each_ce(probe, samples).sum(dim=1)


def _rce(probe: Probe, samples: Indices) -> "torch.Tensor":
    """Without its constant, which has no gradient."""
    return (1 - (-_each_ce(probe, samples)).exp()).sum(dim=1)


def _gradient(probe: Probe, value: "torch.Tensor", *, again: bool = False) -> "torch.Tensor":
    """The gradient of a scalar in all parameters, as one vector; `again`: it is differentiated too."""
    import torch

    parts = torch.autograd.grad(value, _parameters(probe), create_graph=again, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _mean_gradient(probe: Probe, samples: Indices) -> "torch.Tensor":
    """The gradient of the mean reverse cross-entropy, as one vector."""
    if not len(samples):
        raise ValueError("influence needs validation samples")
    starts = range(0, len(samples), probe.batch_size)
    losses = (_rce(probe, samples[start : start + probe.batch_size]).sum() for start in starts)
    return reduce(add, (_gradient(probe, loss / len(samples)) for loss in losses))


def _hessian_vector(probe: Probe, loss: "torch.Tensor", vector: "torch.Tensor") -> "torch.Tensor":
    return _gradient(probe, _gradient(probe, loss, again=True) @ vector).detach()


def _scores(probe: Probe, candidates: Indices, vector: "torch.Tensor") -> Floats:
    scores = np.empty(len(candidates))
    for position, sample in enumerate(candidates):
        scores[position] = -float(_gradient(probe, _ce(probe, sample[None]).sum()) @ vector)
    return scores
