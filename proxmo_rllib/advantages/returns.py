"""Return to go of each turn."""

from __future__ import annotations

import numpy as np

from proxmo_rllib.advantages.table import FloatArray, TurnTable


def returns_to_go(table: TurnTable, gamma: float, invalid_action_penalty: float = 0.0) -> FloatArray:
    """`G_t = r_t + gamma * G_{t+1}` inside each episode.

    Args:
        table: the turns.
        gamma: discount per turn, 0 to 1.
        invalid_action_penalty: subtracted from the reward of each turn whose action was invalid, unit of reward. It
            enters these returns only; success rates and outcomes never see it.

    Returns:
        Shape [turns], unit of reward.

    Raises:
        ValueError: a penalty without the column that says which actions were invalid.
    """
    reward = np.asarray(table.reward, dtype=np.float64)
    if invalid_action_penalty:
        if table.action_valid is None:
            raise ValueError(
                f"invalid_action_penalty={invalid_action_penalty}: the table does not say which actions were invalid; "
                "give TurnTable(action_valid=...) or set the penalty to 0."
            )
        reward = reward - invalid_action_penalty * ~np.asarray(table.action_valid)
    returns = reward.copy()
    # One vectorised update a time step, from the last step on; every turn is touched once.
    order = np.argsort(table.time_step, kind="stable")
    ends = np.cumsum(np.bincount(table.time_step))
    for rows in reversed(np.split(order, ends[:-1])):
        following = table.next_turn[rows]
        rows, following = rows[following >= 0], following[following >= 0]
        returns[rows] += gamma * returns[following]
    return returns


def step_advantage(table: TurnTable, returns: FloatArray, baseline: FloatArray) -> FloatArray:
    """`A_S(t) = G_t - B_t`, shape [turns], unit of reward.

    Zero in a group of one: with no other episode to compare with, it would only tell early turns from late ones.
    """
    return np.where(table.in_group_of_one(), 0.0, returns - baseline)
