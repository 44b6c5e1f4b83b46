"""A trained policy for others to talk to: vLLM's own server with sizes that fit the machine, and a conversation.

    proxmo serve ──► sizes (model, memory) ──► words for vLLM ──► its process ──► /health ──► the address is said
    proxmo chat  ──► a policy in this process, or the address of a server ──► one reply after the other

Nothing here trains or is trained on.
"""
