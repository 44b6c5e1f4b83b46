"""Rollouts: many episodes at once in one event loop, whole groups from one initial state.

Nothing is imported here, so that a part of it that needs no Ray, such as the conversation, costs none.
"""
