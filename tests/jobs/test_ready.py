"""A cluster that has just started, or whose agent broke."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from proxmo_rllib.jobs import ready


class Refusing:
    """A job server without an agent, whose dashboard says where its log is."""

    def __init__(self, session):
        self.session = session

    def submit_job(self, **job):
        raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try again.")

    def _do_request(self, method, endpoint, **options):
        node = {"isHeadNode": True, "sessionDir": str(self.session), "nodeManagerAddress": "10.0.0.1", "nodeId": "ab"}
        summary = {"data": {"summary": [{"raylet": {}}, {"raylet": node}]}}
        return SimpleNamespace(json=lambda: summary)


BIND = "OSError: [Errno 98] error while attempting to bind on address ('10.0.0.1', 52365): address already in use"


def test_an_agent_that_broke_is_said_at_once_with_rays_own_reason(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "dashboard_agent.log").write_text(f"INFO starts\nTraceback:\n  File x\n{BIND}\nINFO goes on\n")
    started = time.monotonic()
    with pytest.raises(RuntimeError) as refused:
        ready.submit_when_ready(Refusing(tmp_path), 100, print)
    assert BIND in str(refused.value)
    assert "--dashboard-agent-listen-port" in str(refused.value)
    assert f"{tmp_path}/logs/dashboard_agent.log on 10.0.0.1" in str(refused.value)
    assert time.monotonic() - started < 5


def test_an_agent_that_does_not_answer_is_said_with_the_place_of_its_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ready, "AGENT_POLL_S", 0.01)
    with pytest.raises(RuntimeError, match=r"dashboard_agent\.log on 10\.0\.0\.1"):
        ready.submit_when_ready(Refusing(tmp_path), 0.02, print)
    assert "dashboard_agent.log" in capsys.readouterr().out


def test_a_dashboard_that_says_nothing_of_its_nodes_is_no_error_of_its_own(tmp_path):
    client = Refusing(tmp_path)
    client._do_request = lambda *_, **__: SimpleNamespace(json=lambda: {"data": {"summary": []}})
    assert "on the head" in ready.ask_for_agent(client).in_words()
