"""The CUDA part as far as a machine without a GPU can tell: kernels, driver types, the check's verdict.

Its logic is tested natively, on a simulated GPU (native/hookpoint/cuda/test). None of it has run on one.
"""

import importlib
import json
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CUDA = os.path.join(ROOT, "native", "hookpoint", "cuda")
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@pytest.fixture(scope="module")
def toolkit():
    """The folder of NVIDIA's compiler, out of the environment's packages."""
    for folder in sys.path:
        found = os.path.join(folder, "nvidia", "cu13")
        if os.path.exists(os.path.join(found, "bin", "nvcc")):
            return found
    if os.environ.get("RING2_REQUIRE_STACK"):
        pytest.fail("nvcc is not in this environment, and RING2_REQUIRE_STACK asks for it")
    raise pytest.skip.Exception("nvcc is not in this environment: the kernels were not compiled")


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)


def test_the_kernels_in_the_tree_are_what_nvcc_makes_of_their_source(toolkit, tmp_path):
    made = tmp_path / "kernels.ptx"
    result = run(os.path.join(CUDA, "generate_ptx.sh"), os.path.join(toolkit, "bin", "nvcc"), str(made))
    assert result.returncode == 0, result.stderr
    with open(os.path.join(CUDA, "kernels.ptx"), encoding="utf-8") as file:
        assert made.read_text() == file.read(), "run native/hookpoint/cuda/generate_ptx.sh again"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_kernels_are_accepted_for(toolkit, tmp_path, architecture):
    result = run(
        os.path.join(toolkit, "bin", "ptxas"), f"-arch={architecture}", "--warning-as-error",
        os.path.join(CUDA, "kernels.ptx"), "-o", str(tmp_path / "kernels.cubin"),
    )
    assert result.returncode == 0, result.stderr


def test_the_drivers_functions_are_declared_as_its_header_has_them(toolkit):
    result = run(
        os.environ.get("CXX", "g++"), "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
        f"-I{os.path.join(toolkit, 'include')}", os.path.join(CUDA, "test", "driver_types_check.cc"),
    )
    assert result.returncode == 0, result.stderr


def check(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess, dict]:
    """The check as its user runs it."""
    settings = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment}
    result = run(os.path.join(CUDA, "check.sh"), *arguments, env=settings)
    return result, json.loads(result.stdout)


def test_the_check_says_in_one_line_that_there_is_no_gpu_and_does_not_pass():
    result, verdict = check()
    assert result.returncode == 2, result.stderr
    assert verdict["verdict"] == "not run" and verdict["checks"] == []
    assert verdict["ran_on_gpu"] is False and "no GPU" in verdict["reason"]
    assert result.stderr.count("\n") == 1 and verdict["reason"] in result.stderr


def test_the_check_says_in_one_line_what_it_misses_and_does_not_pass():
    result, verdict = check("--cpu", PYTHON="/nowhere/python")
    assert result.returncode == 2, result.stderr
    assert verdict["verdict"] == "not run" and "/nowhere/python" in verdict["reason"]
    assert result.stderr.count("\n") == 1


def test_a_record_lost_while_the_check_measures_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(CUDA)
    program = importlib.import_module("check")
    monkeypatch.setattr(program, "SPARE_MB", 0.0625)
    monkeypatch.setattr(program, "MIB", 1 << 30)
    monkeypatch.setattr(program, "ARRIVAL_SECONDS", 0.2)
    monkeypatch.setattr(program, "FORWARDS", {"cpu": 4})
    monkeypatch.setattr(program, "PAIRS", {"cpu": 1})
    monkeypatch.setattr(program, "checks", [])
    monkeypatch.setattr(program, "figures", {})
    monkeypatch.setitem(program.TIMED_TOKENS, "cpu", 64)
    program.measure("tiny", "cpu", (256, 2, 128), str(tmp_path))
    assert program.figures["tiny"]["nothing_lost"] is False
    assert [one["passed"] for one in program.checks] == [False]
