"""Whether the Hugging Face hub can be reached: asked once, so that without a network a hub name fails at once.

Left alone, every file of a model that is looked up is tried six times, half a minute each; then the cache is looked
into all the same.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import urllib.request
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

_ANSWER_S = 5.0
_PORTS = {"https": 443, "http": 80}


@functools.cache
def obstacle() -> str | None:
    """Why nothing can be downloaded, in words; None where the hub's server, or the proxy before it, answers.

    Where it does not, this process and those that it starts take models from the cache alone, as with HF_HUB_OFFLINE=1.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host, port = _server(constants.ENDPOINT)
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except OSError as error:
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"
        logger.warning("%s does not answer (%s): models are taken from the cache alone.", host, error)
        return f"{host} does not answer: {error}"
    return None


def _server(endpoint: str) -> tuple[str, int]:
    """Host and port that a request to the endpoint goes to first."""
    url = urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(url.netloc):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return url.hostname or "", url.port or _PORTS.get(url.scheme, 443)
