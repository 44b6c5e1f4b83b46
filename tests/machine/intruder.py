"""Tries to get into a Ray cluster without its token, as another user's process would; run as a script of its own.

python intruder.py HOST PORT...        prints one JSON object: what each try at each port came to.
python intruder.py --task HOST:PORT    prints what came of running a task as the cluster's user.
"""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 3.0
GETTING_IN = "got in"
# Of services whose description Ray does not ship.
BESIDES = tuple(f"/ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull", "FreeObjects"))
HTTP_PATHS = (
    "/get_or_create_runtime_env",
    "/delete_runtime_env_if_possible",
    "/get_runtime_envs_info",
    "/api/job_agent/jobs/",
    "/api/jobs/",
    "/api/version",
    "/logs",
    "/metrics",
)


def methods() -> Iterator[str]:
    """Every method of every gRPC service that Ray has, as its path."""
    import ray.core.generated as generated

    yield from BESIDES
    for module in pkgutil.walk_packages(generated.__path__, f"{generated.__name__}."):
        if not module.name.endswith("_pb2"):
            continue
        for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


def try_grpc(host: str, port: int) -> dict[str, str]:
    """The status of each method, called with an empty message and no token."""
    import grpc

    found = {}
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return found  # no gRPC there
        for path in methods():
            call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
            try:
                call(b"", timeout=TIMEOUT_S)
                found[path] = GETTING_IN
            except grpc.RpcError as error:
                found[path] = error.code().name
    return found


def try_http(host: str, port: int) -> dict[str, str]:
    """The status of each path. A page of metrics is one that everybody may read."""
    found = {}
    for path in HTTP_PATHS:
        for method, data in (("GET", None), ("POST", b"{}")):
            try:
                request = urllib.request.Request(f"http://{host}:{port}{path}", data=data, method=method)
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    page = answer.read()
                found[f"{method} {path}"] = "metrics" if method == "GET" and is_metrics(page) else GETTING_IN
            except urllib.error.HTTPError as error:
                found[f"{method} {path}"] = str(error.code)
            except (OSError, http.client.HTTPException) as error:  # no HTTP there
                found[f"{method} {path}"] = type(error).__name__
                return found
    return found


def is_metrics(page: bytes) -> bool:
    return all(line.startswith(b"#") or line[:1].isalpha() for line in page.splitlines() if line)


def try_task(address: str) -> str:
    """Runs a task as the cluster's user."""
    import ray
    from ray._private import services

    services.resolve_ip_for_localhost = lambda host: host  # else Ray asks the network card's address
    try:
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
        here = ray.get(ray.remote(num_cpus=0)(lambda: 1).remote(), timeout=20)
        return f"{GETTING_IN}: a task answered {here}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True


def try_port(host: str, port: int) -> dict[str, dict[str, str]] | None:
    """None where not even a connection comes about."""
    if not reachable(host, port):
        return None
    return {"grpc": try_grpc(host, port), "http": try_http(host, port)}


def main() -> None:
    first, *others = sys.argv[1:]
    if first == "--task":
        print(try_task(others[0]))
        return
    with ThreadPoolExecutor(max_workers=8) as pool:
        tries = dict(zip(others, pool.map(lambda port: try_port(first, int(port)), others), strict=True))
    print(json.dumps(tries))


if __name__ == "__main__":
    main()
