"""The Python of docs/endpoint.md runs as it stands, and plays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from proxmo_rllib.endpoint import AgentEpisode
from proxmo_rllib.types import Status


def test_the_page_holds(repository: Path, desk: Any, monkeypatch: Any):
    monkeypatch.setenv("PROXMO_ENDPOINT_TOKEN", "of-sixteen-characters")
    names: dict[str, Any] = {"__name__": "endpoint_page"}
    page = (repository / "docs" / "endpoint.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "endpoint.md", "exec"), names)
    assert names["Shopping"](timeout_s=300).tasks("train")[:2] == ["train/0", "train/1"]
    assert names["Elsewhere"](port=8700).port == 8700
    episode = desk.open("e", lambda prompt: "please")
    told = AgentEpisode("7", 0, desk.server.base_url("e"), desk.server.token, desk.server.reward_url("e"), "policy")
    for name, value in told.as_environment().items():
        monkeypatch.setenv(name, value)
    names["main"]()
    assert episode.status() is Status.SUCCESS
    assert len(episode.turns) == 3
    assert episode.turns[0].anchor == "Task 7. Say a word."
