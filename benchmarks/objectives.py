"""Which objectives and corrections keep learning when engine and learner disagree:
`python -m benchmarks.objectives`, and `--seeds 10 --only ppo` for more or less of it.

A toy of several turns, so that a run takes a second, learnt with the package's own parts from advantages to loss:
estimator, objective, correction, weights, AdamW. The policy is a table: the next token's logits by task, turn, place,
and token before. A turn is a response of 5 tokens out of 12 and is right with at most one of them wrong; the first
wrong turn ends the episode, three right ones are a success. At the start one episode in six succeeds. An iteration is
4 groups of 8 episodes, in 4 optimizer steps.

Four kinds of disagreement:

    said           the engine samples from the policy, and says each logprob with Gaussian noise of that deviation
    said, wild     the same with Student's t of 2 degrees of freedom: most nearly right, a few off by a factor of 100
    sampled        the engine samples from logits with Gaussian noise of that deviation, and says truly what it did; the
                   noise of a table's entry is another one each iteration
    sampled, fixed the same with one noise for the whole run, as other kernels or quantised weights have it

Printed is the success rate of the learner's own policy at the end, computed exactly: mean and lowest of the seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.advantages import TurnTable, estimate_advantages
from proxmo_rllib.learner.losses import LossTokens, PolicyLoss
from proxmo_rllib.learner.normalization import Normalization, token_weights

TASKS, TURNS, PLACES, VOCABULARY = 4, 3, 5, 12
GROUP_SIZE, STEPS = 8, 4
#: Of the right token's logit at the start: about three quarters of the tokens are right.
HEAD_START = 3.5

METHODS: Mapping[str, Mapping[str, Any]] = {
    "ppo, old_logprobs=engine": {},
    "ppo, old_logprobs=learner": {"old_logprobs": "learner"},
    "ppo, dual_clip=3": {"objective": {"name": "ppo", "dual_clip": 3.0}},
    "ppo, token_tis": {"correction": "token_tis"},
    "ppo, sequence_tis": {"correction": "sequence_tis"},
    "ppo, icepop": {"correction": "icepop"},
    "ppo, geometric_mask": {"correction": "geometric_mask"},
    "gspo, old_logprobs=engine": {"objective": {"name": "gspo", "clip_low": 0.1, "clip_high": 0.1}},
    "gspo, sequence_tis": {
        "objective": {"name": "gspo", "clip_low": 0.1, "clip_high": 0.1},
        "correction": "sequence_tis",
    },
    "cispo, old_logprobs=engine": {"objective": "cispo"},
    "cispo, token_tis": {"objective": "cispo", "correction": "token_tis"},
    "reinforce": {"objective": "reinforce"},
    "reinforce, token_tis": {"objective": "reinforce", "correction": "token_tis"},
}


@dataclass(frozen=True, slots=True)
class Noise:
    """A disagreement between engine and learner.

    Attributes:
        kind: "none", "said", "said, wild", "sampled" or "sampled, fixed".
        scale: nats.
    """

    kind: str
    scale: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == "none" else f"{self.kind} {self.scale:g}"


NOISES = (
    Noise("none"),
    *(Noise("said", scale) for scale in (0.5, 1.0)),
    Noise("said, wild", 0.5),
    *(Noise("sampled", scale) for scale in (1.0, 2.0)),
    *(Noise("sampled, fixed", scale) for scale in (1.0, 2.0)),
)


@dataclass(frozen=True, slots=True)
class Played:
    """The tokens of an iteration, one entry each, and the turns that they are of.

    Attributes:
        place: index of the row of the policy's table that sampled it, int64 [tokens].
        token: int64 [tokens].
        behaviour: logprob as the engine said it, float32 [tokens].
        turn: which turn it is of, int64 [tokens].
        episode: which episode each turn is of, int64 [turns], ascending.
        success: of each turn's episode, bool [turns].
        number: of each turn in its episode, int64 [turns].
    """

    place: torch.Tensor
    token: torch.Tensor
    behaviour: torch.Tensor
    turn: torch.Tensor
    episode: np.ndarray
    success: np.ndarray
    number: np.ndarray


class Keypad:
    """The toy: codes to type, and the policy that types them.

    Args:
        seed: of codes, policy, sampling and noise.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.codes = torch.randint(VOCABULARY, (TASKS, TURNS, PLACES), generator=self.generator)
        table = 0.5 * torch.randn(TASKS, TURNS, PLACES, VOCABULARY, VOCABULARY, generator=self.generator)
        table.scatter_add_(
            4,
            self.codes[..., None, None].expand(-1, -1, -1, VOCABULARY, 1),
            torch.full((TASKS, TURNS, PLACES, VOCABULARY, 1), HEAD_START),
        )
        self.table = table.requires_grad_()
        self._fixed = torch.randn(table.shape, generator=self.generator)

    @torch.no_grad()
    def success_rate(self) -> float:
        """Of the policy as it is, by summing over all responses."""
        policy = self.table.softmax(-1)
        rate = 0.0
        for task in range(TASKS):
            right = 1.0
            for turn in range(TURNS):
                # Probability of having typed each token last, with no or one wrong one so far.
                state = torch.zeros(VOCABULARY, 2)
                state[0, 0] = 1.0
                for place in range(PLACES):
                    code = int(self.codes[task, turn, place])
                    moved = policy[task, turn, place].T @ state
                    wrong = moved.clone()
                    wrong[code] = 0.0
                    state = torch.stack([torch.zeros(VOCABULARY), wrong[:, 0]], dim=1)
                    state[code] += moved[code]
                right *= float(state.sum())
            rate += right / TASKS
        return rate

    @torch.no_grad()
    def play(self, noise: Noise) -> Played:
        """One iteration's episodes, all turns of all at once; those after a wrong one are dropped."""
        logits = self.table.detach()
        if noise.kind == "sampled":
            logits = logits + noise.scale * torch.randn(logits.shape, generator=self.generator)
        elif noise.kind == "sampled, fixed":
            logits = logits + noise.scale * self._fixed
        rows = logits.log_softmax(-1).view(-1, VOCABULARY)
        task = torch.arange(TASKS).repeat_interleave(GROUP_SIZE)[:, None].expand(-1, TURNS)
        turn = torch.arange(TURNS)[None].expand(len(task), -1)
        before = torch.zeros_like(task)
        places, tokens = [], []
        for place in range(PLACES):
            row = ((task * TURNS + turn) * PLACES + place) * VOCABULARY + before
            before = torch.multinomial(rows[row.flatten()].exp(), 1, generator=self.generator).view_as(row)
            places.append(row)
            tokens.append(before)
        place, token = torch.stack(places, -1), torch.stack(tokens, -1)
        right = ((token != self.codes[task, turn]).sum(-1) <= 1).long()
        played = torch.cat([torch.ones(len(task), 1).bool(), right.cumprod(1)[:, :-1].bool()], dim=1)
        success = right.prod(1).bool()[:, None].expand(-1, TURNS)
        place, token = place[played].flatten(), token[played].flatten()
        episode = torch.arange(len(task))[:, None].expand(-1, TURNS)[played].numpy()
        return Played(
            place=place,
            token=token,
            behaviour=perturb(rows[place, token], noise, self.generator),
            turn=torch.arange(len(episode)).repeat_interleave(PLACES),
            episode=episode,
            success=success[played].numpy(),
            number=turn[played].numpy(),
        )


def perturb(logprobs: torch.Tensor, noise: Noise, generator: torch.Generator) -> torch.Tensor:
    """What an engine says of tokens in the place of what is true.

    Args:
        logprobs: float32 [tokens].
        noise: of which only the kinds "said" and "said, wild" say anything wrong.
        generator: of the noise.
    """
    normal = torch.randn(len(logprobs), generator=generator).to(logprobs)
    if noise.kind == "said":
        return (logprobs + noise.scale * normal).clamp(max=0.0)
    if noise.kind == "said, wild":
        square = torch.randn(len(logprobs), 2, generator=generator).square().mean(1).to(logprobs)
        return (logprobs + noise.scale * normal / square.sqrt()).clamp(max=0.0)
    return logprobs


def train(method: Mapping[str, Any], noise: Noise, seed: int, iterations: int, lr: float) -> float:
    """One run.

    Args:
        method: settings of the loss, as `ProxMOConfig.training` takes them.
        noise: between engine and learner.
        seed: of everything.
        iterations: of play and learn.
        lr: of AdamW.

    Returns:
        The success rate at the end.
    """
    config = ProxMOConfig().training(**method)
    loss = PolicyLoss(config.chosen_objective(), config.chosen_correction())
    recompute = config.old_logprobs_source() == "learner"
    keypad = Keypad(seed)
    optimizer = torch.optim.AdamW([keypad.table], lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(iterations):
        played = keypad.play(noise)
        advantages, weights = _per_turn(played, config)
        old = _logprobs(keypad, played)[0].detach() if recompute else played.behaviour
        # Whole episodes to a step, as sequences of append-only contexts are.
        step_of = torch.randperm(TASKS * GROUP_SIZE, generator=keypad.generator) % STEPS
        for step in range(STEPS):
            mine = (step_of[torch.from_numpy(played.episode)] == step)[played.turn]
            logprobs, entropy = _logprobs(keypad, played)
            tokens = LossTokens(
                logprobs=logprobs[mine],
                old_logprobs=old[mine],
                behaviour_logprobs=played.behaviour[mine],
                advantages=advantages[played.turn][mine],
                entropy=entropy[mine],
                weights=weights[played.turn][mine],
                turn=torch.unique(played.turn[mine], return_inverse=True)[1],
            )
            optimizer.zero_grad()
            total = loss(tokens).total / Normalization().denominator(float(tokens.weights.sum()), 0.0)
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_([keypad.table], 1.0)
            if bool(norm.isfinite()):
                optimizer.step()
    return keypad.success_rate()


def _logprobs(keypad: Keypad, played: Played) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = keypad.table.view(-1, VOCABULARY)[played.place].log_softmax(-1)
    return log_p.gather(1, played.token[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def _per_turn(played: Played, config: ProxMOConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantage, and what a token weighs, of each turn."""
    last = np.append(played.episode[1:] != played.episode[:-1], True)
    table = TurnTable(
        group=played.episode // GROUP_SIZE,
        episode=played.episode,
        reward=(played.success & last).astype(float),
        success=played.success,
        anchor=[f"keypad {number}" for number in played.number],
    )
    settings = config.estimator_settings() | {"similarity": "exact"}
    total = estimate_advantages(table, "proxmo", **settings).total
    lengths = [np.full(count, PLACES) for count in np.bincount(played.episode)]
    weights = np.concatenate([token_weights(config.loss_weighting, turns) for turns in lengths])
    return torch.from_numpy(total).float(), torch.from_numpy(weights).float()


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--only", default="", help="methods whose name begins so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = np.mean([Keypad(seed).success_rate() for seed in range(arguments.seeds)])
    began = time.perf_counter()
    print("| " + " | ".join(["success, %", *map(str, NOISES)]) + " |")
    print("|" + "---|" * (1 + len(NOISES)))
    for name, method in METHODS.items():
        if not name.startswith(arguments.only):
            continue
        cells = []
        for noise in NOISES:
            ends = [
                100 * train(method, noise, seed, arguments.iterations, arguments.lr) for seed in range(arguments.seeds)
            ]
            cells.append(f"{np.mean(ends):.0f} ({min(ends):.0f})")
        print("| " + " | ".join([f"`{name}`", *cells]) + " |", flush=True)
    minutes = (time.perf_counter() - began) / 60
    print(
        f"\n{arguments.seeds} seeds: mean (lowest); {100 * start:.0f}% before training; {arguments.iterations} "
        f"iterations, lr={arguments.lr:g}; {minutes:.1f} minutes on one core"
    )


if __name__ == "__main__":
    main()
