"""The arithmetic of the published ProxMO code (commit 496efa7), departures from the paper included, for parity."""

from __future__ import annotations

import re

import numpy as np

from proxmo_rllib.advantages.episode import MeanOver, centred, episode_weight, group_mean
from proxmo_rllib.advantages.modulation import HALF_SPAN, modulation, resolve_beta
from proxmo_rllib.advantages.proximity import IdfScope, SoftAggregation, SoftComparison
from proxmo_rllib.advantages.registry import register_estimator
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go
from proxmo_rllib.advantages.table import TurnTable
from proxmo_rllib.advantages.tokens import TWO_CHARACTER_PATTERN

PUBLISHED_RANGE = 0.05  # of the modulation, in the official scripts


@register_estimator("proxmo_official")
def proxmo_official(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    psc_alpha: float = 4.0,
    psc_beta: float | None = None,
    psc_range: float | None = None,
    psa_temperature: float = 0.1,
    step_weight: float = 1.0,
    episode_mean_over: MeanOver = "turns",
    idf_scope: IdfScope = "batch",
    tfidf_max_features: int | None = 1024,
) -> Advantages:
    """`A(t) = w(R_i, p) * (S_i - mean S) + omega * (G_t - B_t)` with `S_i` the undiscounted return of the episode.

    Use it to compare with the authors' runs, with their rewards (10 for success, minus 0.1 for an invalid action); for
    training take `proxmo`. It departs from the paper in that

    - `p` is the mean of `S` clamped to [0, 1], so that rewards of 10 lose the modulation;
    - means run over turns, and the std is not used;
    - one-character words are dropped, the vocabulary is of the whole batch and capped;
    - a blank anchor has similarity 0 even to itself, and a batch without any word gets step advantage zero;
    - a group of one turn gets its raw return as episode advantage.

    Left out: the random duplicate rows that the official trainer adds to fill its batch.

    Args:
        table: the turns; rewards as the official trainer pays them.
        gamma: discount per turn of the returns to go.
        psc_alpha: exponent of the modulation.
        psc_beta: strength of the modulation.
        psc_range: the strength as the largest deviation from 1; 0.05 if neither is given.
        psa_temperature: tau of the softmax over similarities.
        step_weight: omega.
        episode_mean_over: means over turns (which the official code calls steps) or episodes.
        idf_scope: document frequencies from the whole batch or from the group.
        tfidf_max_features: keep only the most frequent terms.
    """
    score = table.episode_return
    weight = episode_weight(table, episode_mean_over)
    rate = np.clip(group_mean(table, score, weight), 0.0, 1.0)[table.episode_group]
    beta = resolve_beta(psc_beta, psc_range, default=PUBLISHED_RANGE / HALF_SPAN)
    factor = modulation(table.episode_success, rate, alpha=psc_alpha, beta=beta)
    one_entry = np.bincount(table.episode_group, weights=weight)[table.episode_group] == 1.0
    relative = np.where(one_entry, score, centred(table, score, weight))

    returns = returns_to_go(table, gamma)
    options = SoftAggregation(
        temperature=psa_temperature,
        idf_scope=idf_scope,
        token_pattern=TWO_CHARACTER_PATTERN,
        max_features=tfidf_max_features,
        blank_matches_itself=False,
    )
    comparison = SoftComparison.of(table, returns, options)
    has_words = any(re.search(TWO_CHARACTER_PATTERN, anchor) for anchor in table.anchor)
    return Advantages.build(
        table,
        episode=factor * relative,
        modulation=factor,
        step=returns - comparison.baseline if has_words else np.zeros(len(table)),
        step_weight=step_weight,
        returns=returns,
        comparison=comparison,
    )
