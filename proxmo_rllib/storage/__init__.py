"""Runs on storage that is no folder: `s3://bucket/runs`, `gs://`, `file://`, whatever pyarrow or fsspec opens.

A run works in a folder of this machine, and is copied to its place at each checkpoint; whoever wants it fetches it.

    place    a URI, opened: read, write, list, delete; what is wrong with it, in words
    mirror   the run's folder, copied to its place whenever a checkpoint is whole
    fetch    a run, or a checkpoint of it, brought here

At the place lies what lies in a run's folder, but `checkpoints/latest` is a text: the name of the checkpoint to go on
from. A checkpoint there is whole when its proxmo_checkpoint.json is there, which is sent last.
"""

from proxmo_rllib.storage.place import Place, StorageError, Uri, is_uri, open_place, path_or_uri

__all__ = ["Place", "StorageError", "Uri", "is_uri", "open_place", "path_or_uri"]
