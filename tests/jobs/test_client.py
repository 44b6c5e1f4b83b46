"""The cluster's job server: its address, its token, its version."""

from __future__ import annotations

import pytest

from proxmo_rllib.jobs import client


def test_a_token_that_ray_has_kept_is_sent(tmp_path):
    environment: dict[str, str] = {}
    client.find_token(environment, tmp_path)
    assert environment == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    client.find_token(environment, tmp_path)
    assert environment == {"RAY_AUTH_MODE": "token"}
    chosen = {"RAY_AUTH_MODE": "disabled"}
    client.find_token(chosen, tmp_path)
    assert chosen == {"RAY_AUTH_MODE": "disabled"}


def test_an_address_that_is_said_wins_over_the_environment():
    environment = {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "http://b:1"}
    assert client.job_server("http://c:1", environment) == "http://c:1"
    assert client.job_server(None, environment) == "http://b:1"
    assert client.job_server(None, {"RAY_ADDRESS": "http://a:1"}) == "http://a:1"
    assert client.job_server(None, {"RAY_ADDRESS": "a:6379"}) == client.DEFAULT_ADDRESS
    with pytest.raises(ValueError, match="speaks HTTP"):
        client.job_server("head:6379", {})


def test_a_cluster_of_another_ray_is_refused_with_both_versions():
    client.check_ray("http://c:1", "2.60.1", "2.60.0")
    with pytest.raises(client.OtherRayError, match=r"Ray 2\.58\.0, and here is Ray 2\.60\.0.*ray\[default"):
        client.check_ray("http://c:1", "2.58.0", "2.60.0")
