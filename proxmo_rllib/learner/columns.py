"""Names of the batch's columns; one row is one token sequence (see `proxmo_rllib.types.TokenSequence`).

All per-token columns have shape [sequences, longest] and are aligned with the token they speak of: `ADVANTAGES[i, t]`
is the advantage of having sampled token t of sequence i.
"""

TOKEN_IDS = "token_ids"  # int64
LENGTHS = "lengths"  # int64 [sequences]
LOSS_MASK = "loss_mask"  # bool: True where the token was sampled by the policy and counts in the loss
LOSS_WEIGHTS = "loss_weights"  # float32: the token's share in the loss, 0 outside the mask
ADVANTAGES = "advantages"  # float32
TURN = "turn"  # int64: number of the token's turn among all of the learner's batch; -1 outside the mask
BEHAVIOUR_LOGPROBS = "behaviour_logprobs"  # float32, of the engine that sampled, temperature included
OLD_LOGPROBS = "old_logprobs"  # float32, of the policy before the first optimizer step of the iteration
REFERENCE_LOGPROBS = "reference_logprobs"  # float32, of the frozen initial policy

# What the module's forward pass returns; [tokens] counts the True entries of LOSS_MASK, row by row.
LOGPROBS = "logprobs"  # float32 [tokens]
ENTROPY = "entropy"  # float32 [tokens]
