"""`proxmo episodes`: recorded episodes to and from a folder of Hugging Face `datasets`.

    proxmo episodes export RUN FOLDER     # a run's episodes as a dataset: datasets.load_from_disk(FOLDER)
    proxmo episodes import FOLDER RUN     # a dataset as a record: proxmo view RUN

Nothing is lost on the way: what is exported and imported again is the same record.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line; exits with a message as argparse does."""
    parser = argparse.ArgumentParser(
        prog="proxmo episodes", description="Recorded episodes to and from a folder of Hugging Face datasets."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="export|import")
    out = commands.add_parser("export", help="write a run's episodes as a dataset")
    out.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or the file of its record")
    out.add_argument("folder", type=Path, metavar="FOLDER", help="the dataset; must not be there")
    back = commands.add_parser("import", help="write a dataset as the record of a run")
    back.add_argument("folder", type=Path, metavar="FOLDER", help="that Dataset.save_to_disk wrote")
    back.add_argument("run", type=Path, metavar="RUN", help="the folder to write the record into")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Write; see the module's docstring."""
    arguments = parse(argv)
    from proxmo_rllib.integrations.dataset_folder import write_dataset, write_record

    run, folder = arguments.run.expanduser(), arguments.folder.expanduser()
    try:
        if arguments.command == "export":
            print(f"{write_dataset(run, folder)} episodes written: {folder}")
        else:
            print(f"{write_record(folder, run)} episodes written: {run}")
    except (ValueError, OSError, ImportError) as error:
        print(f"proxmo episodes: {error}", file=sys.stderr)
        return 1
    return 0
