"""Engines that sample the agent's turns, the pool that routes to them, and the way of the weights."""
