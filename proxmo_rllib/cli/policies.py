"""The policy that a word on the command line names: a checkpoint, a run, a model's folder, or a name on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """Where the weights are, and the config they were trained with, if that is known."""

    pretrained: str
    config: ProxMOConfig | None


def find_policy(word: str) -> NamedPolicy:
    """The policy that a word names.

    Args:
        word: a run folder (its latest checkpoint is meant), a checkpoint of RLlib's, a folder that save_pretrained
            wrote, `asset:NAME`, or a name on the hub.

    Raises:
        ValueError: there is no such folder, or no policy in it.
    """
    from proxmo_rllib.algorithm import POLICY_FOLDER
    from proxmo_rllib.policies import resolve_pretrained
    from proxmo_rllib.training_run.folder import checkpoint_of

    path = Path(word).expanduser()
    if (path / "run.json").is_file() or (path / "rllib_checkpoint.json").is_file():
        checkpoint = checkpoint_of(path)
        policy = checkpoint / POLICY_FOLDER
        if not policy.is_dir():
            raise ValueError(f"{checkpoint} has no folder {POLICY_FOLDER!r}: it is no checkpoint of ProxMO.")
        _import_as_the_run_did(path)
        return NamedPolicy(str(policy), checkpoint_config(checkpoint))
    return NamedPolicy(resolve_pretrained(word), None)


def _import_as_the_run_did(path: Path) -> None:
    """The config may name classes of modules that lay beside the run's file."""
    from proxmo_rllib.cli.examples import make_importable
    from proxmo_rllib.training_run.folder import RunFolder

    try:
        file = RunFolder.of(path).read_json("run.json").get("file")
    except ValueError:
        return  # a checkpoint that was moved out of its run, or one that RLlib alone wrote
    if file and Path(file).is_file():
        make_importable(Path(file))


def checkpoint_config(checkpoint: Path) -> ProxMOConfig:
    """The config of a checkpoint, as a copy that can be changed.

    Raises:
        ValueError: it is no checkpoint of this algorithm.
    """
    from ray import cloudpickle

    from proxmo_rllib.config import ProxMOConfig

    with (checkpoint / "class_and_ctor_args.pkl").open("rb") as file:
        arguments, keywords = cloudpickle.load(file)["ctor_args_and_kwargs"]
    config: Any = keywords.get("config", arguments[0] if arguments else None)
    if isinstance(config, dict) and "class" in config:  # as RLlib writes it
        config = ProxMOConfig.from_state(config)
        del config.__dict__["class"]
    if not isinstance(config, ProxMOConfig):
        raise ValueError(f"{checkpoint} is a checkpoint of {type(config).__name__}, not of ProxMOConfig.")
    thawed: ProxMOConfig = config.copy(copy_frozen=False)
    return thawed
