"""The policy that a word on the command line names: a checkpoint, a run, a model's folder, or a name on the hub.

Of a checkpoint JSON and safetensors are read and nothing is run, whoever wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxmo_rllib.storage.place import Uri, is_uri

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig

_CHECKPOINT = "rllib_checkpoint.json"


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """Where the weights are, and the config they were trained with, if that is known.

    Attributes:
        pretrained: the folder or name of the model.
        config: what its checkpoint says, but for what names code.
        withheld: what was left out of it, in words, by setting.
        file: the file that the run was started with, if the run says one.
    """

    pretrained: str
    config: ProxMOConfig | None
    withheld: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None

    def refuse_withheld(self, said: Collection[str]) -> None:
        """Refuses a checkpoint whose settings name code, unless the user said those settings himself.

        Args:
            said: settings, or dictionaries of settings, that do not come from the checkpoint.

        Raises:
            ValueError: naming what is to be said.
        """
        for key, value in self.withheld.items():
            if key not in said and key.partition(".")[0] not in said:
                own = f"; the run was started with {self.file}" if self.file else ""
                raise ValueError(
                    f"{self.pretrained}: its checkpoint says {key}={value}, which is code, or names some, and a "
                    f"checkpoint is not let choose what runs. If you trust it, say {key}=... yourself, or --config "
                    f"FILE.py{own}."
                )


def find_policy(word: str) -> NamedPolicy:
    """The policy that a word names.

    Args:
        word: a run folder (its latest checkpoint is meant), a checkpoint of RLlib's, either of them on storage
            (`s3://...`), a folder that save_pretrained wrote, `asset:NAME`, or a name on the hub.

    Raises:
        ValueError: there is no such folder, or no policy in it, or its settings are damaged.
    """
    from proxmo_rllib import settings_file
    from proxmo_rllib.policies import resolve_pretrained
    from proxmo_rllib.saved_algorithm import POLICY_FOLDER
    from proxmo_rllib.training_run.folder import checkpoint_of

    if is_uri(word):
        from proxmo_rllib.cli.stored import here

        word = str(here(Uri(word), (POLICY_FOLDER, settings_file.NAME, _CHECKPOINT)))
    path = Path(os.path.expanduser(word))
    if any(os.path.isfile(path / name) for name in ("run.json", _CHECKPOINT)):
        checkpoint = checkpoint_of(path, (POLICY_FOLDER, settings_file.NAME))
        policy = checkpoint / POLICY_FOLDER
        if not policy.is_dir():
            raise ValueError(f"{checkpoint} has no folder {POLICY_FOLDER!r}: it is no checkpoint of ProxMO.")
        return _of_checkpoint(checkpoint, policy, path)
    return NamedPolicy(resolve_pretrained(word), None)


def _of_checkpoint(checkpoint: Path, policy: Path, path: Path) -> NamedPolicy:
    from proxmo_rllib import settings_file

    file = checkpoint / settings_file.NAME
    if not file.is_file():
        return NamedPolicy(str(policy), None, file=_started_with(path))
    read = settings_file.read_settings(file)
    read.config.policy(lora=None)  # adapters are merged into the policy's weights
    return NamedPolicy(str(policy), read.config, read.withheld, _started_with(path))


def _started_with(path: Path) -> str | None:
    """The file that a run was started with, to name it to the user; it is not run."""
    for folder in (path.absolute(), *path.absolute().parents[:2]):
        try:
            file = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("file")
        except (OSError, ValueError, AttributeError):
            continue  # not in a run, or of one that is damaged
        return str(file) if file else None
    return None
