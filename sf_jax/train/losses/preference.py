"""Objectives over preferences, as functions of log-probabilities alone.

Each takes sums of the log-probabilities of answers, under the policy that is trained and under the
frozen reference, and gives a loss for each pair or answer; GRPO takes those of tokens. Which tokens
of an answer are in a sum is the caller's business. Values and gradients equal those of TRL's
trainers (`tests/train/losses/test_preference.py`). Arrays keep their precision.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SPREAD_FLOOR = 1e-4  # added to the standard deviation that rewards are divided by
SCALES = ("group", "batch", "none")  # whose standard deviation rewards are divided by


def bradley_terry(
    difference: Float[Array, " N"], label_smoothing: float | Float[Array, " N"] = 0.0
) -> Float[Array, " N"]:
    """Negative log-likelihood of judgements under the model of Bradley and Terry (1952).

    The probability that the first of two is chosen is sigmoid(difference).

    Args:
      difference: score of the chosen one less that of the rejected one.
      label_smoothing: the probability that a judgement is the wrong way round; 0.5 for a tie.
    """
    kept = jax.nn.log_sigmoid(difference) * (1 - jnp.asarray(label_smoothing))
    return -(kept + jax.nn.log_sigmoid(-difference) * label_smoothing)


def log_ratio_difference(
    policy_chosen: Float[Array, " N"],
    policy_rejected: Float[Array, " N"],
    reference_chosen: Float[Array, " N"],
    reference_rejected: Float[Array, " N"],
) -> Float[Array, " N"]:
    """By how much more the policy has raised the chosen answer than the rejected one, in nats."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def dpo(
    policy_chosen: Float[Array, " N"],
    policy_rejected: Float[Array, " N"],
    reference_chosen: Float[Array, " N"],
    reference_rejected: Float[Array, " N"],
    *,
    beta: float = 0.1,
    label_smoothing: float | Float[Array, " N"] = 0.0,
) -> Float[Array, " N"]:
    """Direct preference optimisation (Rafailov et al., arXiv:2305.18290), sigmoid loss.

    With label smoothing it is conservative DPO, cDPO (Mitchell 2023, "A note on DPO with noisy
    preferences and relationship to IPO"). Where both answers are equal, the loss is ln 2.

    Args:
      policy_chosen, …: log-probability of each answer, summed over the tokens that count, in nats.
      beta: how strongly the policy is held to the reference.
      label_smoothing: see `bradley_terry`.
    """
    ratios = log_ratio_difference(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected
    )
    return bradley_terry(beta * ratios, label_smoothing)


def ipo(
    policy_chosen: Float[Array, " N"],
    policy_rejected: Float[Array, " N"],
    reference_chosen: Float[Array, " N"],
    reference_rejected: Float[Array, " N"],
    chosen_length: Float[Array, " N"],
    rejected_length: Float[Array, " N"],
    *,
    beta: float = 0.1,
    label_smoothing: float | Float[Array, " N"] = 0.0,
) -> Float[Array, " N"]:
    """Identity preference optimisation (Azar et al., arXiv:2310.12036, equation 17).

    Its target is a finite difference, so that judgements which all agree do not drive the policy
    away from the reference without end. Log-probabilities are taken per token, as the authors do.

    Args:
      chosen_length, rejected_length: tokens that are in the sums.
      label_smoothing: the probability that a judgement is the wrong way round; moves the target
        towards 0.
    """
    chosen = (policy_chosen - reference_chosen) / jnp.maximum(chosen_length, 1)
    rejected = (policy_rejected - reference_rejected) / jnp.maximum(rejected_length, 1)
    target = (1 - 2 * jnp.asarray(label_smoothing)) / (2 * beta)
    return jnp.square(chosen - rejected - target)


def kto(
    policy: Float[Array, " N"],
    reference: Float[Array, " N"],
    desirable: Bool[Array, " N"],
    divergence: Float[Array, ""],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Array, " N"]:
    """Kahneman–Tversky optimisation (Ethayarajh et al., arXiv:2402.01306), a loss an answer.

    Args:
      policy, reference: log-probability of each answer, in nats.
      desirable: whether an answer was judged good by itself.
      divergence: how far the policy is from the reference, see `kto_divergence`.
      desirable_weight, undesirable_weight: of the losses of either kind, to make up for unequal
        numbers of them.
    """
    gain = policy - reference - divergence
    losses = 1 - jax.nn.sigmoid(beta * jnp.where(desirable, gain, -gain))
    return jnp.where(desirable, desirable_weight, undesirable_weight) * losses


def kto_divergence(
    policy: Float[Array, " N"],
    reference: Float[Array, " N"],
    weights: Float[Array, " N"] | None = None,
) -> Float[Array, ""]:
    """An estimate of the divergence of policy and reference, at least 0, without gradient.

    Args:
      policy, reference: log-probability of answers to other prompts than they are given with.
      weights: of the answers, all equal by default.
    """
    weights = jnp.ones_like(policy) if weights is None else weights
    mean = ((policy - reference) * weights).sum() / jnp.maximum(weights.sum(), 1e-9)
    return jax.lax.stop_gradient(jnp.maximum(mean, 0))


def group_advantages(rewards: Float[Array, "N G"], scale: str = "group") -> Float[Array, "N G"]:
    """How much better each of G answers to one prompt is than the others (Shao et al.,
    arXiv:2402.03300).

    Args:
      rewards: NaN where an answer has none: it counts for nothing, and its advantage is 0.
      scale: what they are divided by: the standard deviation within the "group", over the whole
        "batch", or "none".

    Raises:
      ValueError: `scale` is none of these.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}, expected one of {', '.join(SCALES)}")
    rewards = jnp.asarray(rewards)
    found = rewards - jnp.nanmean(rewards, -1, keepdims=True)
    if scale != "none":
        axis = -1 if scale == "group" else None
        spread = jnp.nanstd(rewards, axis, ddof=1, keepdims=True)
        found /= jnp.nan_to_num(spread) + SPREAD_FLOOR
    return jnp.nan_to_num(found)


def grpo(
    policy: Float[Array, "*T"],
    old: Float[Array, "*T"],
    advantages: Float[Array, "*T"],
    reference: Float[Array, "*T"] | None = None,
    *,
    clip: tuple[float, float] = (0.2, 0.2),
    beta: float = 0.0,
) -> Float[Array, "*T"]:
    """Group relative policy optimisation (Shao et al., arXiv:2402.03300), a loss a token.

    The loss of an answer is the mean over its tokens, that of a batch the mean over answers.

    Args:
      policy, old: log-probability of each token under the policy, and under the one that sampled
        it; while these are the same, give `jax.lax.stop_gradient(policy)`.
      advantages: of each token's answer, see `group_advantages`.
      reference: log-probabilities under the reference, for `beta`.
      clip: how far below and above 1 the ratio of probabilities still moves the policy.
      beta: weight of the divergence from the reference, estimated without bias and never negative
        (Schulman's k3).
    """
    ratio = jnp.exp(policy - old)
    clipped = jnp.clip(ratio, 1 - clip[0], 1 + clip[1])
    losses = -jnp.minimum(ratio * advantages, clipped * advantages)
    if reference is None or not beta:
        return losses
    away = reference - policy
    return losses + beta * (jnp.exp(away) - away - 1)
