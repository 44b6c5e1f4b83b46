"""How to get the official product files, and whether those in a folder are right."""

from __future__ import annotations

from pathlib import Path

from env_wrappers.webshop import official

_DRIVE = "https://drive.google.com/uc?id="
# File identifiers as the published environment's setup.sh has them.
SOURCES = {
    "items_shuffle_1000.json": "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
    "items_ins_v2_1000.json": "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
    "items_shuffle.json": "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
    "items_ins_v2.json": "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
    "items_human_ins.json": "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
}
# SHA-256 of the small catalogue that the recorded episodes of this package's tests were played in.
TESTED = {
    "items_shuffle_1000.json": "56c6342b8392e439ddc58396059041fc019636c9771c98fd9b7123c06af1976d",
    "items_ins_v2_1000.json": "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
    "items_human_ins.json": "8bc0ae02b37351395091c55b29352ba21a26a231d093c151cf1a83847ca66359",
    "title_nouns.json": "84df3b44ef1e07176602c9c71c80d8d86c48a0b292b9c77e58fb0199d9f0dc55",
}


def describe() -> str:
    """What to do to play the official WebShop: which files, where from, how to have them checked. Lines to print."""
    small, full = official.PAIRS
    return "\n".join(
        [
            "WebShop needs no data: without `catalogue`, products are generated. For official ones put into a folder",
            *(f"  small (1,000 products):     {name:26}{_DRIVE}{SOURCES[name]}" for name in small),
            *(f"  or full (1.18 million):     {name:26}{_DRIVE}{SOURCES[name]}" for name in full),
            f"  people's instructions:      {official.HUMAN:26}{_DRIVE}{SOURCES[official.HUMAN]}",
            f"  optional, nouns of titles:  {official.NOUNS:26}(JSON: a list of lower-case words for each asin)",
            "and pass it: gymnasium.make('env_wrappers/WebShop-v0', catalogue=FOLDER), or set WEBSHOP_DATA.",
            f"To have the files checked whenever they are opened: cd FOLDER && sha256sum *.json > {official.SUMS}",
        ]
    )


def check_folder(folder: Path) -> str:
    """Read the official files of a folder. Nothing is downloaded.

    Returns:
        Lines to print: how many products there are, and each file's size and hash.

    Raises:
        FileNotFoundError: there are no products.
        CatalogueError: a file does not hold what it should, or not what SHA256SUMS says.
    """
    files = official.find_files(folder)
    official.check_sums(folder, files)
    number = sum(1 for _ in official.read_products(files))
    lines = [f"{folder} is ready: {number:,} products."]
    for path in files.present():
        digest = official.sha256(path)
        known = TESTED.get(path.name)
        note = "" if known is None else ", as tested" if digest == known else ", not the version that was tested"
        lines.append(f"  {path.name}: {path.stat().st_size:,} bytes, SHA-256 {digest}{note}")
    if files.human is None:
        lines.append(f"  {official.HUMAN} is missing: goals='human' has no task without it.")
    if files.nouns is None:
        lines.append(f"  {official.NOUNS} is missing: nouns are told by their form, so a few scores differ.")
    return "\n".join(lines)
