"""`proxmo doctor` finds what keeps the project from running, and says what to do about it."""

from __future__ import annotations

import json
import socket
import sys

import pytest

from proxmo_rllib.cli import checks, doctor, main
from proxmo_rllib.cli.checks import Finding, Grade
from proxmo_rllib.cli.machine import Imports, processor_flags
from proxmo_rllib.machine.memory import available_memory
from proxmo_rllib.machine.processors import available_cores

CPU = Imports(errors={"torch": None, "ray": None, "vllm": None}, torch_version="2.13.0+cpu")
H100 = Imports(
    errors={"torch": None, "ray": None, "vllm": None},
    torch_version="2.13.0",
    built_for_cuda="13.0",
    gpus=(("H100", 80 << 30),),
)


def test_an_unsupported_python_fails():
    assert checks.check_python((3, 11)).grade is Grade.OK
    assert checks.check_python((3, 13)).grade is Grade.FAIL
    assert "3.11 or 3.12" in checks.check_python((3, 10)).remedy


def test_this_installation_has_the_packages_that_it_asks_for():
    assert checks.check_packages().grade is Grade.OK


def test_a_missing_and_a_wrong_version_are_named():
    finding = checks.check_packages(["ray==2.10.*", "no-such-distribution>=1", "numpy>=1", "vllm; extra == 'gpu'"])
    assert finding.grade is Grade.FAIL
    assert "ray" in finding.finding
    assert "no-such-distribution missing" in finding.finding
    assert "numpy" not in finding.finding
    assert "vllm" not in finding.finding


def test_torchvision_that_does_not_load_beside_torch_is_to_be_uninstalled():
    imports = Imports(
        errors={
            "torch": None,
            "vllm": "RuntimeError: operator torchvision::nms does not exist",
            "torchvision": "RuntimeError: operator torchvision::nms does not exist",
        },
        torch_version="2.13.0+cpu",
    )
    for finding in (checks.check_vllm(imports, "0.32.0", None), checks.check_companions(imports)):
        assert finding.grade is Grade.FAIL
        assert finding.remedy.startswith("pip uninstall -y torchvision")


@pytest.mark.parametrize(
    ("imports", "cpu_wheel", "cuda_wheel", "grade"),
    [
        (CPU, "0.32.0", None, Grade.OK),
        (H100, None, "0.33.0", Grade.OK),
        (CPU, None, "0.33.0", Grade.FAIL),  # the CUDA wheel without a GPU
        (H100, "0.32.0", None, Grade.WARN),  # a GPU that stays idle
        (CPU, "0.32.0", "0.32.0", Grade.FAIL),  # both overwrite each other's files
        (Imports(errors={"torch": None}), None, None, Grade.WARN),  # the transformers engine remains
    ],
)
def test_the_wheel_of_vllm_must_fit_the_machine(imports, cpu_wheel, cuda_wheel, grade):
    finding = checks.check_vllm(imports, cpu_wheel, cuda_wheel)
    assert finding.grade is grade
    assert finding.remedy or grade is Grade.OK


def test_a_cuda_torch_that_sees_no_gpu_fails_only_where_there_is_one():
    blind = Imports(errors={"torch": None}, torch_version="2.13.0", built_for_cuda="13.0")
    assert checks.check_torch(blind, nvidia=True).grade is Grade.FAIL
    assert checks.check_torch(blind, nvidia=False).grade is Grade.OK
    assert checks.check_torch(CPU, nvidia=True).grade is Grade.WARN


def test_a_processor_without_avx2_fails_unless_there_is_a_gpu():
    assert checks.check_processor(frozenset({"sse4_2"}), "x86_64", gpus=0).grade is Grade.FAIL
    assert checks.check_processor(frozenset({"sse4_2"}), "x86_64", gpus=1).grade is Grade.OK
    assert checks.check_processor(frozenset({"avx2"}), "x86_64", gpus=0).grade is Grade.OK


def test_little_memory_warns_and_less_fails():
    assert checks.check_memory(16 << 30).grade is Grade.OK
    assert checks.check_memory(6 << 30).grade is Grade.WARN
    assert checks.check_memory(2 << 30).grade is Grade.FAIL


def test_a_ray_cluster_that_is_not_there_is_found_before_training():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        refused = checks.check_ray_address({"RAY_ADDRESS": f"127.0.0.1:{port}"})
        listener.listen()
        answered = checks.check_ray_address({"RAY_ADDRESS": f"ray://127.0.0.1:{port}"})
    assert refused.grade is Grade.FAIL
    assert str(port) in refused.finding
    assert "ray start --head" in refused.remedy
    assert answered.grade is Grade.OK
    assert checks.check_ray_address({"RAY_ADDRESS": "nonsense"}).grade is Grade.FAIL
    assert checks.check_ray_address({}).grade is Grade.OK


def test_official_games_are_optional_but_a_wrong_folder_fails(tmp_path):
    assert {finding.grade for finding in checks.check_alfworld({})} == {Grade.OK}
    finding = checks.check_alfworld({"ALFWORLD_DATA": str(tmp_path)})[-1]
    assert finding.grade is Grade.FAIL
    assert "proxmo data alfworld" in finding.remedy
    (tmp_path / "games.jsonl").touch()
    for place in (tmp_path, tmp_path / "games.jsonl"):
        assert checks.check_alfworld({"ALFWORLD_DATA": str(place)})[-1].grade is Grade.OK
    assert checks.check_alfworld({"ALFWORLD_DATA": str(tmp_path / "none")})[-1].grade is Grade.FAIL


def test_the_key_of_wandb_is_never_shown(tmp_path):
    finding = checks.check_wandb({"WANDB_API_KEY": "secret"}, tmp_path)
    assert finding.grade is Grade.OK
    assert "secret" not in finding.finding


def test_facts_of_this_machine_are_plausible(tmp_path):
    assert available_cores() >= 1
    assert available_memory() > 1 << 28
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f\n")
    assert processor_flags(cpuinfo) == {"fpu", "avx2", "avx512f"}
    assert processor_flags(tmp_path / "none") == frozenset()


@pytest.fixture
def findings(monkeypatch):
    """What the doctor finds, without its imports, which take half a minute."""
    found = [
        Finding("Python", Grade.OK, "3.11"),
        Finding("vLLM", Grade.WARN, "not installed", "pip install -e '.[cpu]'"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda folder: found)
    return found


def test_the_exit_status_tells_scripts_whether_it_runs(findings, capsys):
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    findings.append(Finding("memory", Grade.FAIL, "1.0 GiB available", "free memory"))
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["findings"][-1] == {
        "name": "memory",
        "status": "fail",
        "finding": "1.0 GiB available",
        "remedy": "free memory",
    }


def test_the_table_shows_remedies_as_they_are_to_be_typed(findings, capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "pip install -e '.[cpu]'" in printed
    assert "0 failed, 1 warnings, 2 checks" in printed


def test_an_import_that_ends_the_process_is_a_finding(monkeypatch, tmp_path):
    from proxmo_rllib.cli import machine

    (tmp_path / "torch.py").write_text("import os; os.kill(os.getpid(), 4)")  # illegal instruction
    (tmp_path / "ray.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine, "COMPANIONS", ())
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    errors = machine.probe_imports().errors
    assert errors["torch"] is not None
    assert "status -4" in errors["torch"]
    assert errors["ray"] == "RuntimeError: operator torchvision::nms does not exist"


@pytest.mark.slow
def test_this_machine_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    status = main(["doctor", "--json", "--folder", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert status == 0, report
    python = next(row for row in report["findings"] if row["name"] == "Python")
    assert sys.executable in python["finding"]


@pytest.fixture
def own_module(monkeypatch, tmp_path):
    """A module in the working folder, with an environment that forgets to say whether it succeeded."""
    (tmp_path / "my_forgetful_module.py").write_text(
        "import gymnasium\n"
        "from env_wrappers.core import AnyText\n"
        "class MyEnv(gymnasium.Env):\n"
        "    def __init__(self, known=False):\n"
        "        self.observation_space = self.action_space = AnyText()\n"
        "        self.known = {'success': False} if known else {}\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return 'hello', dict(self.known)\n"
        "    def step(self, action):\n"
        "        return 'hm', 0.0, False, False, dict(self.known)\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "my_forgetful_module:MyEnv"
    sys.modules.pop("my_forgetful_module", None)


def test_the_doctor_names_what_is_wrong_with_an_environment(own_module, capsys):
    assert main(["doctor", "--json", "--env", own_module]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["name"], finding["status"]) == ("success", "fail")
    assert "reset" in finding["finding"]
    assert "info of reset and of every step" in finding["remedy"]
    assert main(["doctor", "--env", own_module, "--env-config", '{"known": true}']) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_the_doctor_takes_a_registered_environment(capsys):
    assert main(["doctor", "--json", "--env", "env_wrappers/ALFWorld-v0", "--env-config", '{"rooms": "bathroom"}']) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


@pytest.mark.parametrize("words", [["--env", "Nowhere-v0"], ["--env", "env_wrappers/ALFWorld-v0", "--env-config", "3"]])
def test_the_doctor_refuses_an_environment_that_is_not_there(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *words])
    assert ended.value.code == 2
    assert "--env" in capsys.readouterr().err


def test_a_temporary_folder_whose_path_is_too_long_for_sockets_is_found():
    found = checks.check_sockets({"TMPDIR": "/tmp/" + "x" * 80})
    assert found.grade is Grade.FAIL
    assert "85 bytes" in found.finding
    assert checks.check_sockets({}).grade is Grade.OK
