"""Submitting to a cluster that has just started: it answers some seconds before it takes jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxmo_rllib.jobs.client import head_node

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

NO_AGENT = "No available agent"  # what the job server answers until its agent runs
AGENT_POLL_S = 3.0
AGENT_LOG = "dashboard_agent.log"


def submit_when_ready(client: JobSubmissionClient, wait_s: float, say: Callable[[str], object], **job: Any) -> str:
    """Submit; a cluster that has just started takes jobs only when its agent runs, some seconds after it answers.

    Args:
        client: from `connect`.
        wait_s: how long to wait for the agent.
        say: is told that it waits, and for what.
        job: the arguments of `JobSubmissionClient.submit_job`.

    Returns:
        The job's id.

    Raises:
        RuntimeError: the cluster refuses the job, its agent broke, or it has none after `wait_s`; with Ray's reason.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            agent = ask_for_agent(client)
            if agent.broke or time.monotonic() > deadline:
                raise RuntimeError(f"the cluster takes no jobs: {agent.in_words()}") from error
            say(f"the cluster is not ready for jobs yet: {agent.in_words()}")
        time.sleep(AGENT_POLL_S)


@dataclass(frozen=True, slots=True)
class Agent:
    """What is known of the process that starts jobs on a cluster's head.

    Attributes:
        log: its log's place.
        broke: the error that it ended with, as its log has it; empty if none.
    """

    log: str
    broke: str = ""

    def in_words(self) -> str:
        """For a person who waits for it."""
        if not self.broke:
            return f"its job agent does not answer; a port in use is the usual cause, its log has it: {self.log}"
        remedy = ""
        if "address already in use" in self.broke:
            remedy = "; start the head with a free port: ray start --head --dashboard-agent-listen-port=PORT"
        return f"its job agent broke: {self.broke}{remedy}; its log: {self.log}"


def ask_for_agent(client: JobSubmissionClient) -> Agent:
    """What the head's job agent does, from its log, where the head is this machine; else where the log is."""
    try:
        head = head_node(client)
        log, host = Path(head["sessionDir"]) / "logs" / AGENT_LOG, head["nodeManagerAddress"]
    except LookupError:
        return Agent(f"/tmp/ray/session_latest/logs/{AGENT_LOG} on the head")
    # The dashboard shows logs through the agent, which is what is missing.
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    errors = re.findall(r"^\w*(?:Error|Exception): .+$", text, re.MULTILINE)
    return Agent(f"{log} on {host}", errors[-1] if errors else "")
