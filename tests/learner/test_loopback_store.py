"""Where learners meet: on loopback, if that is their address, and elsewhere as torch has it."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psutil
import pytest

from proxmo_rllib.learner import loopback_store
from proxmo_rllib.learner.loopback_store import listen_where_told


@pytest.fixture(autouse=True)
def torch_as_it_was(monkeypatch):
    monkeypatch.setattr(loopback_store._rendezvous, "_create_c10d_store", loopback_store._rendezvous._create_c10d_store)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening_at(port: int) -> set[str]:
    mine = psutil.Process(os.getpid()).net_connections(kind="inet")
    return {entry.laddr.ip for entry in mine if entry.status == psutil.CONN_LISTEN and entry.laddr.port == port}


def test_a_store_at_loopback_listens_there_alone_and_keeps_what_it_is_told():
    listen_where_told()
    listen_where_told()  # by each learner of a process
    port, patience = free_port(), timedelta(seconds=20)
    create = loopback_store._rendezvous._create_c10d_store
    with ThreadPoolExecutor(max_workers=1) as first:
        server = first.submit(create, "127.0.0.1", port, 0, 2, patience)  # waits for the second
        create("127.0.0.1", port, 1, 2, patience).set("key", "value")
        assert server.result().get("key") == b"value"
    assert listening_at(port) == {"127.0.0.1"}


def test_a_store_at_another_address_is_torchs_own(monkeypatch):
    asked = []
    monkeypatch.setattr(loopback_store._rendezvous, "_create_c10d_store", lambda *all_of: asked.append(all_of))
    listen_where_told()
    for address in ("10.0.0.1", "head.example"):
        loopback_store._rendezvous._create_c10d_store(address, 1, 0, 2, timedelta(seconds=1))
    assert [entry[0] for entry in asked] == ["10.0.0.1", "head.example"]
