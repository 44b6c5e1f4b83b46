"""ALFWorld (Shridhar et al. 2021, arXiv:2010.03768): household tasks in text, without a simulator.

`engine` plays a game, `problem` parses one, `games` reads the official files, `data` checks and packs them, `generator`
makes new ones, `oracle` solves them knowing everything, `expert` knowing what it has read, `env` is the Gymnasium
environment, `official` the engine of the alfworld package.
"""
