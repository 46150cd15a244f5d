"""TRL's own losses on given log-probabilities: its trainers around a model that returns them.

Reads cases from standard input as JSON, {name: [function, arguments]}, and prints {name: result};
null where TRL is not installed. Run with a Python that has it (extra `porting`).

Trainers are made without their constructors, which want models and datasets; what their losses read
is set by hand. Each function returns the loss and its gradient by the log-probabilities.
"""

import importlib.util
import json
import sys
import types
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from any_torchvision import import_torchvision

import_torchvision()  # before transformers, which looks for it

Found = tuple[float, list]


def trainer(kind: type, **attributes: Any) -> Any:
    """A trainer of TRL's on one device, with these attributes."""
    made = object.__new__(kind)
    same = lambda x, **_: x  # noqa: E731
    accelerator = types.SimpleNamespace(
        device="cpu", gather=same, gather_for_metrics=same, reduce=same, num_processes=1
    )
    shared = {
        "model": types.SimpleNamespace(training=False),
        "accelerator": accelerator,
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"eval": defaultdict(list)},
        "_total_train_tokens": 0,
    }
    vars(made).update(shared | attributes)
    return made


def outputs(log_probabilities: torch.Tensor) -> Any:
    """What a model returns for them."""
    blank = torch.zeros_like(log_probabilities)
    return types.SimpleNamespace(
        log_probs=log_probabilities, entropy=blank, mean_logits=blank, is_top1=blank.bool()
    )


def given(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def tokens(mask: np.ndarray) -> dict[str, torch.Tensor]:
    """Inputs of which the masked tokens are the answer; a token of the prompt precedes all."""
    after_prompt = np.concatenate([np.zeros((len(mask), 1), int), mask], 1)
    return {
        "input_ids": torch.ones(after_prompt.shape, dtype=torch.long),
        "attention_mask": torch.ones(after_prompt.shape, dtype=torch.long),
        "completion_mask": torch.tensor(after_prompt),
    }


def pairs(
    kind: str,
    policy: np.ndarray,
    reference: np.ndarray,
    mask: np.ndarray,
    beta: float,
    smoothing: float = 0.0,
) -> Found:
    """A loss of `DPOTrainer`.

    Args:
      policy, mask: [2N, T], chosen answers before rejected ones; reference: [2N], sums.
    """
    from trl.trainer.dpo_trainer import DPOTrainer

    made = trainer(
        DPOTrainer,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        beta=beta,
        label_smoothing=smoothing,
        loss_types=[kind],
        loss_weights=[1.0],
        use_weighting=False,
    )
    logs = given(policy)
    chosen, rejected = torch.tensor(reference).chunk(2)
    inputs = tokens(mask) | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    loss = made._compute_loss(lambda **_: outputs(logs * torch.tensor(mask)), inputs, False)
    loss.backward()
    assert logs.grad is not None
    return float(loss), logs.grad.tolist()


def kto(
    policy: np.ndarray,
    reference: np.ndarray,
    unlike: np.ndarray,
    unlike_reference: np.ndarray,
    desirable: np.ndarray,
    beta: float,
    weights: np.ndarray,
) -> Found:
    """The loss of `KTOTrainer`.

    Args:
      policy: [N, T]; reference: [N], sums; unlike, unlike_reference: of answers to other prompts.
      weights: of desirable and of undesirable answers.
    """
    from trl.trainer.kto_trainer import KTOTrainer

    made = trainer(
        KTOTrainer,
        loss_type="kto",
        calculate_KL=True,
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    logs = given(policy)
    own = tokens(np.ones(policy.shape, int))
    others = {f"KL_{name}": value for name, value in own.items()}
    inputs = (
        own
        | others
        | {
            "label": torch.tensor(desirable),
            "ref_logps": torch.tensor(reference),
            "ref_KL_logps": torch.tensor(unlike_reference),
        }
    )
    answers = iter([torch.tensor(unlike), logs])  # the others are asked for first
    loss = made._compute_loss(lambda **_: outputs(next(answers)), inputs, False)
    loss.backward()
    assert logs.grad is not None
    return float(loss), logs.grad.tolist()


def grpo(
    policy: np.ndarray,
    old: np.ndarray,
    reference: np.ndarray,
    advantages: np.ndarray,
    mask: np.ndarray,
    beta: float,
    clip: np.ndarray,
) -> Found:
    """The loss of `GRPOTrainer` on log-probabilities [N, T] and advantages [N]."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logs = given(policy)
    made = trainer(
        GRPOTrainer,
        loss_type="grpo",
        beta=beta,
        epsilon_low=clip[0],
        epsilon_high=clip[1],
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False),
        _get_per_token_logps_and_entropies=lambda *_, **__: (logs, torch.zeros_like(logs), None),
    )
    ids = torch.ones(mask.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": torch.tensor(mask),
        "advantages": torch.tensor(advantages),
        "old_per_token_logps": torch.tensor(old),
        "ref_per_token_logps": torch.tensor(reference),
    }
    loss = made._compute_loss(None, inputs)
    loss.backward()
    assert logs.grad is not None
    return float(loss), logs.grad.tolist()


def spread(rewards: np.ndarray) -> list[float]:
    """The standard deviation of each group [N, G], by which advantages are scaled."""
    from trl.trainer.utils import nanstd

    return nanstd(torch.tensor(rewards), dim=1).tolist()


FUNCTIONS = {"pairs": pairs, "kto": kto, "grpo": grpo, "spread": spread}


def main() -> None:
    if importlib.util.find_spec("trl") is None:
        print("null")
        return
    torch.set_num_threads(1)
    results = {}
    for name, (function, arguments) in json.load(sys.stdin).items():
        arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in arguments.items()}
        results[name] = FUNCTIONS[function](**arrays)
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main()
