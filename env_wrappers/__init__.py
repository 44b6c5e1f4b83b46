"""Text environments with the Gymnasium interface. Importing this package registers them.

```python
import gymnasium
import env_wrappers

env = gymnasium.make("env_wrappers/ALFWorld-v0")
observation, info = env.reset(seed=0, options={"task": env.unwrapped.tasks("train")[0]})
```

The contract of all of them is `env_wrappers.core`; prompts, action parsing and history are wrappers on top
(`env_wrappers.prompting`). Nothing here imports ray, torch or proxmo_rllib.
"""

from env_wrappers.core import TextEnv, register_all

register_all()

__all__ = ["TextEnv"]
