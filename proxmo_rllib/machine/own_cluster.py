"""What a Ray cluster of one's own on this machine lets in: a token of its own, and the loopback interface alone.

Whoever can speak to a Ray cluster can run code in it. Ray listens on every interface, and makes a token that it leaves
in the user's home, readable to others. A cluster that one run starts and ends needs neither. Written for Ray 2.60;
touches its private names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, MutableMapping

LOOPBACK = "127.0.0.1"
_TOKEN = "token"
# The variables that this process set for its newest cluster.
_ours: dict[str, str] = {}


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While it lasts, a Ray that is started here listens on loopback alone, and asks for a new random token.

    The token is in the environment of this process and of those that the cluster starts, which no other user can read,
    and in no file. A choice that the user made (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH) stays.
    """
    from ray._private import ray_constants

    give_token(os.environ)
    present = ray_constants.ENABLE_RAY_CLUSTER
    # Else Ray takes a network card's address, and where its address is not 127.0.0.1 its servers listen everywhere.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _variables(os.environ, loopback_settings()):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = present


def give_token(environment: MutableMapping[str, str]) -> None:
    """Sets a new random token, unless the user chose one, or none."""
    forget_token(environment)
    chosen = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    if chosen or environment.get("RAY_AUTH_MODE", _TOKEN).lower() != _TOKEN:
        return
    _ours.update({"RAY_AUTH_MODE": _TOKEN, "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    environment.update(_ours)
    _read_again()


def forget_token(environment: MutableMapping[str, str]) -> None:
    """Removes a token of `give_token`'s, before this process joins another cluster."""
    if not _ours:
        return
    for name, value in _ours.items():
        if environment.get(name) == value:
            del environment[name]
    _ours.clear()
    _read_again()


def loopback_settings() -> dict[str, str]:
    """Variables that have vLLM, gloo and NCCL listen on loopback alone, in the processes that inherit them."""
    names = {"VLLM_HOST_IP": LOOPBACK}
    interface = _loopback_interface()
    return names | {f"{library}_SOCKET_IFNAME": interface for library in ("GLOO", "NCCL", "TP")}


def _read_again() -> None:
    """Has Ray read the environment anew: it did when it was imported, and keeps what it found."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled, without types

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _loopback_interface() -> str:
    """The name of the interface that has 127.0.0.1: lo on Linux, lo0 on macOS."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == LOOPBACK for address in addresses):
            return str(name)
    raise OSError(f"No network interface has {LOOPBACK}, and Ray cannot do without; bring the loopback interface up.")


@contextlib.contextmanager
def _variables(environment: MutableMapping[str, str], defaults: Mapping[str, str]) -> Iterator[None]:
    """Sets what is not set, for a while: the processes that are started meanwhile inherit it."""
    added = {name: value for name, value in defaults.items() if name not in environment}
    environment.update(added)
    try:
        yield
    finally:
        for name in added:
            environment.pop(name, None)
