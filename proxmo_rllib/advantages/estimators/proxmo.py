"""ProxMO: modulated episode advantage plus a step advantage against similar turns (arXiv 2602.19225)."""

from __future__ import annotations

from proxmo_rllib.advantages.episode import MeanOver
from proxmo_rllib.advantages.modulation import modulated_outcome, resolve_beta
from proxmo_rllib.advantages.proximity import IdfScope, SoftAggregation, SoftComparison, TimePooling
from proxmo_rllib.advantages.registry import register_estimator, register_preset
from proxmo_rllib.advantages.result import Advantages
from proxmo_rllib.advantages.returns import returns_to_go, step_advantage
from proxmo_rllib.advantages.similarity import Similarity
from proxmo_rllib.advantages.table import TurnTable
from proxmo_rllib.advantages.tokens import TOKEN_PATTERN


@register_estimator("proxmo")
def proxmo(
    table: TurnTable,
    *,
    gamma: float = 0.95,
    psc_alpha: float = 4.0,
    psc_beta: float | None = None,
    psc_range: float | None = None,
    psa_temperature: float = 0.1,
    step_weight: float = 1.0,
    normalize_std: bool = True,
    episode_mean_over: MeanOver = "episodes",
    include_self: bool = True,
    time_pooling: TimePooling = "all",
    similarity: Similarity = "tfidf",
    idf_scope: IdfScope = "group",
    tfidf_token_pattern: str = TOKEN_PATTERN,
    tfidf_max_features: int | None = None,
    invalid_action_penalty: float = 0.0,
) -> Advantages:
    """`A(t) = w(R_i, p) * (R_i - p) / (std + 1e-6) + omega * (G_t - B_t)`.

    `R_i` is the success of the turn's episode, `p` the success rate of its group, `w` the modulation (`modulation.py`),
    `G_t` the return to go, `B_t` the mean return of similar turns of the group (`proximity.py`).

    Assumes that the episodes of a group are samples of one task from one state, and that alike observations mean alike
    prospects. The two parts have different units: the first is a z-score, the second a reward. A group of one gets
    zero.

    Args:
        table: the turns.
        gamma: discount per turn of the returns to go.
        psc_alpha: exponent of the modulation.
        psc_beta: strength of the modulation, 0.1 if neither it nor `psc_range` is given; 0 switches it off.
        psc_range: the strength as the largest deviation of the modulation from 1, as the official scripts set it.
        psa_temperature: tau of the softmax over similarities.
        step_weight: omega.
        normalize_std: divide the outcome by the standard deviation (Bessel's correction) of the group's.
        episode_mean_over: `p` and std over episodes, or over turns, where long episodes count more.
        include_self: whether the turn itself is in its baseline; without it the step advantage is not shrunk.
        time_pooling: compare with all turns of the group, those of the same time step ("step"), or those within k time
            steps (an int).
        similarity: "tfidf", "exact", "embedding:<folder>" (`embedding.py`), or a function of the distinct anchors of a
            group that returns one vector an anchor, or a Kernel.
        idf_scope: document frequencies from the group or from the whole batch; "batch" makes the result depend on how
            groups are sharded over Learners.
        tfidf_token_pattern: regular expression of one token; one-character tokens count by default.
        tfidf_max_features: keep only the most frequent terms.
        invalid_action_penalty: subtracted from the reward of an invalid turn in `G_t`, never from `R_i` or `p`.
    """
    episode, factor = modulated_outcome(
        table,
        alpha=psc_alpha,
        beta=resolve_beta(psc_beta, psc_range),
        normalize_std=normalize_std,
        mean_over=episode_mean_over,
    )
    returns = returns_to_go(table, gamma, invalid_action_penalty)
    options = SoftAggregation(
        temperature=psa_temperature,
        similarity=similarity,
        include_self=include_self,
        time_pooling=time_pooling,
        idf_scope=idf_scope,
        token_pattern=tfidf_token_pattern,
        max_features=tfidf_max_features,
    )
    comparison = SoftComparison.of(table, returns, options)
    return Advantages.build(
        table,
        episode=episode,
        modulation=factor,
        step=step_advantage(table, returns, comparison.baseline),
        step_weight=step_weight,
        returns=returns,
        comparison=comparison,
    )


proxmo_without_modulation = register_preset(
    "proxmo_without_modulation", proxmo, psc_alpha=4.0, psc_beta=0.0, psc_range=None
)
