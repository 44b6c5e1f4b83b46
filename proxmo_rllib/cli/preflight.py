"""What can be found wrong with a config before Ray starts, and `proxmo train --dry-run`, which says what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxmo_rllib.cli.session import check_machine, cluster_address, requested, start_ray

if TYPE_CHECKING:
    from proxmo_rllib.config import ProxMOConfig
    from proxmo_rllib.planning import Plan

OK, NOT_CHECKED, REFUSED = "ok", "not checked", "refused"
_COLOURS = {OK: "green", NOT_CHECKED: "yellow", REFUSED: "bold red"}
_EXCERPT = 1200


@dataclass(frozen=True, slots=True)
class Check:
    """One row of a dry run."""

    what: str
    status: str
    found: str


def validate(config: ProxMOConfig) -> None:
    """Everything that can be checked without Ray and without the weights.

    Raises:
        ValueError: naming the setting, its value and the remedy.
        FileNotFoundError: data that the environment needs is not there.
    """
    from proxmo_rllib.model_checks import check_model
    from proxmo_rllib.rollouts.environments import check_first_prompt

    config.validate()
    check_model(config.pretrained or "", config.engine, config.lora_record, config.tensor_parallel_size)
    check_first_prompt(config)


def dry_run(config: ProxMOConfig, policy_exists: bool = True) -> tuple[list[Check], str]:
    """Builds and checks everything but the weights.

    Args:
        config: what to check.
        policy_exists: False if a warm start will make it, and its tokenizer, first.

    Returns:
        What was found, and the first prompt as text.

    Raises:
        ValueError: naming the setting, its value and the remedy.
        FileNotFoundError: data that the environment needs is not there.
    """
    from proxmo_rllib.rollouts.environments import begin, check_first_prompt, env_name, make_text_env, split_tasks

    config.validate()
    checks = [Check("config", OK, f"{config.num_groups} groups x {config.group_size}, {config.advantage_estimator}")]
    env = make_text_env(config)
    try:
        tasks = split_tasks(env, config)
        checks.append(
            Check("environment", OK, f"{env_name(config.env)}, {len(tasks):,} tasks in split {config.split!r}")
        )
        message, _ = begin(env, tasks[0])
    finally:
        env.close()
    if config.panel is not None:
        checks.append(_check_panel(config))
    room = config.max_model_len - config.max_response_tokens
    words = f"{len(message.split())} words"
    if policy_exists:
        try:
            tokens = len(check_first_prompt(config))
            checks.append(Check("first prompt", OK, f"{tokens} tokens of {room} that there is room for"))
            checks += _check_chat(config)
        except ValueError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            checks.append(Check("first prompt", NOT_CHECKED, f"{words}; no tokenizer: {error}"))
    else:
        checks.append(Check("first prompt", NOT_CHECKED, f"{words}; the warm start makes the tokenizer"))
    checks.append(_check_model(config, policy_exists))
    return checks, message


def _check_model(config: ProxMOConfig, policy_exists: bool) -> Check:
    from proxmo_rllib.model_checks import check_model

    if not policy_exists:
        return Check("model", NOT_CHECKED, "the warm start makes it")
    found = check_model(config.pretrained or "", config.engine, config.lora_record, config.tensor_parallel_size)
    if found is None:
        return Check("model", NOT_CHECKED, f"{config.pretrained} is not on this machine: a run fetches it first")
    return Check("model", OK, f"{found}, {config.dtype}")


def _check_chat(config: ProxMOConfig) -> list[Check]:
    """What the model's chat template does to conversations."""
    from proxmo_rllib.rollouts.environments import chat_format

    chat = chat_format(config)
    if config.context == "window":
        becomes = "a prompt a turn"
    elif not chat.appends_replies:
        becomes = "it changes what was said before: every turn is a sequence of its own"
    elif chat.appends_thoughts:
        becomes = "it only appends: an episode is one sequence"
    else:
        becomes = "it takes thoughts out of earlier replies: a turn after a thought is a sequence of its own"
    checks = [Check("chat template", OK, becomes), Check("reply opens with", OK, repr(chat.reply_opening))]
    if chat.prints_the_date:
        checks.append(Check("date", OK, f"prompts say that it is {config.chat_template_date} (chat_template_date)"))
    return checks


def check_resources(config: ProxMOConfig, address: str | None, in_trial: bool = False) -> Check:
    """Whether the run would be refused: by this machine, or by a cluster, which is asked.

    Args:
        config: of the run.
        address: of a cluster; None for RAY_ADDRESS, or this machine.
        in_trial: whether it is a trial of Ray Tune.

    Raises:
        ConnectionError: no cluster answers there.
    """
    from proxmo_rllib.machine.folders import FolderError
    from proxmo_rllib.machine.resources import ResourcesError, describe_bundles

    request = requested(config)
    try:
        where = "this machine"
        if cluster_address(address) is None:
            check_machine(request, address, in_trials=in_trial)
        else:
            import ray

            where = start_ray(address, request, in_trials=in_trial)
            ray.shutdown()
    except (ResourcesError, FolderError) as error:
        return Check("resources", REFUSED, str(error))
    return Check("resources", OK, f"on {where}, {describe_bundles(request.bundles)}")


def check_plan(
    config: ProxMOConfig, address: str | None, policy_exists: bool = True
) -> tuple[list[Check], Plan | None]:
    """Whether the run's memory fits, on paper.

    Args:
        config: of the run.
        address: of a cluster; None for RAY_ADDRESS, or this machine.
        policy_exists: False if a warm start will make it first.

    Returns:
        A row for each thing that does not fit, or one that says what the run takes; and the plan, if there is one.

    Raises:
        ValueError: the settings ask for what the model has not.
    """
    from proxmo_rllib.cli.plan import hardware_of, plan_of
    from proxmo_rllib.planning import this_machines_gpus
    from proxmo_rllib.planning.model_shape import UnreadableConfigError
    from proxmo_rllib.planning.report import summary

    if not policy_exists:
        return [Check("plan", NOT_CHECKED, "the warm start makes the model")], None
    here = cluster_address(address) is None
    gpu_gb = this_machines_gpus()[1] if here else None
    try:
        plan = plan_of(config, hardware_of(config, None, gpu_gb, on_this_machine=here))
    except UnreadableConfigError as error:
        return [Check("plan", NOT_CHECKED, str(error))], None
    if not plan.problems:
        return [Check("plan", OK, summary(plan))], plan
    # Of GPUs that are not here nothing is known but what most have.
    known = here and (gpu_gb is not None or not plan.gpus)
    rest = "" if known else f"; for GPUs of {plan.hardware.gpu_gb:g} GB, others with `proxmo plan --gpu-memory`"
    return [Check("plan", REFUSED if known else NOT_CHECKED, problem + rest) for problem in plan.problems], plan


def _check_panel(config: ProxMOConfig) -> Check:
    from proxmo_rllib.rollouts.environments import begin, make_text_env

    panel = config.panel
    assert panel is not None
    env = make_text_env(config, panel.env_id, dict(panel.env_kwargs))
    try:
        begin(env, panel.tasks[0])
    finally:
        env.close()
    return Check("panel", OK, f"{panel.name}@{panel.digest[:12]}, {len(panel)} tasks")


def print_dry_run(console: Console, checks: list[Check], prompt: str) -> None:
    """Shows what a dry run found."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for check in checks:
        table.add_row(check.what, f"[{_COLOURS[check.status]}]{check.status}[/]", escape(check.found))
    console.print(table)
    console.print("\nthe first prompt's last message:", style="bold")
    shown = prompt if len(prompt) <= _EXCERPT else f"{prompt[:_EXCERPT]}\n... ({len(prompt)} characters)"
    console.print(shown, markup=False, highlight=False)
