"""The vLLM backend, in conversation with a stand-in for vLLM that checks what it is given. vLLM itself is not run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import generate as stage
import pandas as pd
import pytest
from w2s import vllm_worker
from w2s.artifact import load
from w2s.backends import Transformers, Vllm, choose
from w2s.config import load_config, merge, read_yaml
from w2s.encoding import Encoding
from w2s.errors import ArtifactError, ConfigError, DataError, EnvironmentProblem, W2SError
from w2s.generation import Generation, Sampling, generate, prompt_key
from w2s.models import load_causal
from w2s.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [("a", "What do cats eat?"), ("b", "Who?"), ("c", "How do I bake bread?")]
# As much of vLLM's interface as is used. It answers the last prompts first, writes down what it was given, and prints
# to standard output as vLLM does. What it answers stands in `script.json`: of each prompt token ids and why they end.
STAND_IN = """
import json, os, subprocess
HERE = os.path.dirname(__file__)
print("INFO: a line that is no JSON")

class EngineArgs:
    def __init__(self, model, dtype, load_format, trust_remote_code, tensor_parallel_size, disable_log_stats):
        self.given = dict(locals())
        del self.given["self"]

class SamplingParams:
    def __init__(self, seed, temperature, top_p, max_tokens, stop, stop_token_ids, ignore_eos):
        self.given = dict(locals())
        del self.given["self"]

class Output:
    def __init__(self, **given):
        self.__dict__.update(given)

class LLMEngine:
    @classmethod
    def from_engine_args(cls, args):
        made = cls()
        if args.given["tensor_parallel_size"] > 1:
            made.other = subprocess.Popen(["sleep", "600"])
            with open(os.path.join(HERE, "other.pid"), "w") as stream:
                stream.write(str(made.other.pid))
        made.requests, made.log = [], {"engine": args.given, "requests": [], "environment": dict(os.environ)}
        return made

    def add_request(self, request_id, prompt, params):
        assert isinstance(request_id, str) and set(prompt) == {"prompt_token_ids"}
        self.log["requests"].append([request_id, prompt["prompt_token_ids"], params.given])
        self.requests.append(request_id)

    def has_unfinished_requests(self):
        return bool(self.requests)

    def step(self):
        with open(os.path.join(HERE, "log.json"), "w") as stream:
            json.dump(self.log, stream)
        request_id = self.requests.pop()
        with open(os.path.join(HERE, "script.json")) as stream:
            tokens, reason = json.load(stream)[int(request_id)]
        if reason == "crash":
            raise RuntimeError("the stand-in was told to fail")
        found = Output(token_ids=tuple(tokens), finish_reason=reason)
        unfinished = Output(request_id="0", finished=False, outputs=[])
        return [unfinished, Output(request_id=request_id, finished=True, outputs=[found])]
"""


@pytest.fixture
def other_python(tmp_path):
    """An interpreter with an environment of its own, in which the stand-in is all the vLLM there is."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "vllm.py").write_text(STAND_IN)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def told(python: Path, script: list[tuple[list[int], str]]) -> None:
    (python.parent / "script.json").write_text(json.dumps(script))


def log(python: Path) -> dict:
    return json.loads((python.parent / "log.json").read_text())


def test_what_vllm_is_given_and_gives(tiny_model, other_python, monkeypatch):
    encoding = Encoding.load(tiny_model)
    fish, more = (encoding.response_ids(text, eos=False) for text in (" Fish.", "\n\nHuman: More?"))
    told(other_python, [([*fish, encoding.eos_id], "stop"), ([*fish, *more], "stop"), (fish, "length")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    sampling = Sampling(0.6, 0.9, max_new_tokens=40, seed=7)
    backend = choose("vllm", tiny_model, "bfloat16", "auto", 64, other_python)
    found = list(backend.generate_each(PROMPTS, sampling))
    assert found == [
        (2, Generation(" Fish.", len(fish), "length")),
        (1, Generation(" Fish.", len(fish), "stop")),
        (0, Generation(" Fish.", len(fish), "eos")),
    ]
    given = log(other_python)
    assert given["engine"] == {
        "model": str(tiny_model),
        "dtype": "bfloat16",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "tensor_parallel_size": 2,
        "disable_log_stats": True,
    }
    for place, (name, text) in enumerate(PROMPTS):
        request, ids, params = given["requests"][place]
        assert (request, ids) == (str(place), encoding.prompt_ids(text))
        assert params == {
            "seed": prompt_key(7, name) % 2**63,
            "temperature": 0.6,
            "top_p": 0.9,
            "max_tokens": 40,
            "stop": ["\n\nHuman:"],
            "stop_token_ids": [encoding.eos_id],
            "ignore_eos": True,
        }
    assert given["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "elsewhere" not in given["environment"]["PYTHONPATH"]


def test_an_end_token_that_is_not_handed_over_is_an_end(tiny_model, other_python):
    fish = Encoding.load(tiny_model).response_ids(" Fish.", eos=False)
    told(other_python, [(fish, "stop"), (fish, "length"), ([], "stop")])
    found = dict(
        Vllm(tiny_model, "float32", other_python).generate_each(PROMPTS, Sampling(max_new_tokens=40))
    )
    assert [found[place].finished for place in range(3)] == ["eos", "length", "eos"]


def test_without_vllm(tiny_model, other_python, tmp_path):
    def run(python: Path | None) -> None:
        list(Vllm(tiny_model, "float32", python).generate_each(PROMPTS, Sampling(max_new_tokens=40)))

    (other_python.parent / "vllm.py").unlink()
    with pytest.raises(EnvironmentProblem, match="No module named 'vllm'") as error:
        run(other_python)
    assert "envs/vllm.in" in str(error.value) and str(other_python) in str(error.value)
    with pytest.raises(EnvironmentProblem, match="no Python there"):
        run(tmp_path / "nothing")
    with pytest.raises(EnvironmentProblem, match="needs a Python that has vLLM"):
        run(None)


def test_what_vllm_says_when_it_fails(tiny_model, other_python, capfd):
    told(other_python, [([], "crash")] * 3)
    with pytest.raises(EnvironmentProblem, match="vLLM ended with exit code 1"):
        list(Vllm(tiny_model, "float32", other_python).generate_each(PROMPTS, Sampling(max_new_tokens=40)))
    printed = capfd.readouterr().err
    assert "told to fail" in printed and "INFO: a line that is no JSON" in printed


def test_the_worker_goes_when_nobody_asks_any_more(tiny_model, other_python, monkeypatch):
    """With the processes that it started for a second GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    told(other_python, [([5], "length")] * 3)
    started = []
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *words, kind=subprocess.Popen, **more: started.append(kind(*words, **more)) or started[-1],
    )
    answers = Vllm(tiny_model, "float32", other_python).generate_each(PROMPTS, Sampling(max_new_tokens=40))
    next(answers)
    other = int((other_python.parent / "other.pid").read_text())
    assert lives(other)
    answers.close()
    assert started[0].returncode is not None
    assert not lives(other)


def lives(pid: int) -> bool:
    """Whether a process runs, given some time to end."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def copy_of(folder: Path, to: Path, **changes: object) -> Path:
    """A model's folder with other entries in its configuration."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


def test_models_that_vllm_is_not_given(tiny_model, make_model, other_python, tmp_path):
    def run(folder: Path, sampling: Sampling = Sampling()) -> W2SError:  # noqa: B008
        with pytest.raises(W2SError) as error:
            list(Vllm(folder, "float32", other_python).generate_each(PROMPTS, sampling))
        return error.value

    remote = run(copy_of(tiny_model, tmp_path / "remote", auto_map={"AutoModel": "code.Model"}))
    assert isinstance(remote, ArtifactError) and "never run here" in str(remote)
    unsafe = copy_of(tiny_model, tmp_path / "unsafe")
    (unsafe / "model.safetensors").rename(unsafe / "pytorch_model.bin")
    assert "no safetensors weights" in str(run(unsafe))
    assert "rope_parameters" in str(run(make_model(0, "llama")))
    too_long = run(tiny_model, Sampling(max_new_tokens=250))
    assert isinstance(too_long, DataError) and "positions" in str(too_long)
    assert not (other_python.parent / "log.json").exists()


def test_transformers_is_the_other_backend(tiny_model):
    backend = choose("transformers", tiny_model, "float32", "cpu", 2, None)
    assert isinstance(backend, Transformers)
    sampling = Sampling(max_new_tokens=8)
    found = dict(backend.generate_each(PROMPTS, sampling))
    model, encoding = load_causal(tiny_model, on="cpu"), Encoding.load(tiny_model)
    assert [found[place] for place in range(3)] == generate(model, encoding, PROMPTS, sampling)


def test_the_worker_needs_nothing_of_ours_or_of_torch():
    """It starts under a Python without our libraries, and beside modules named as some of the standard library's."""
    code = (
        "import runpy, sys; "
        f"runpy.run_path({vllm_worker.__file__!r}, run_name='worker'); "
        "print([name for name in ('torch', 'transformers', 'numpy', 'w2s') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert (Path(vllm_worker.__file__).parent / "statistics.py").exists()


def test_the_stage_with_vllm(tiny_model, make_examples, other_python, tmp_path):
    """The backend is part of the artifact's specification, its Python is not."""
    fish = Encoding.load(tiny_model).response_ids(" Fish.")
    told(other_python, [(fish, "stop")] * 3)
    examples, split = make_examples(test=3)

    def run(name: str, *more: object) -> object:
        inputs = ["--model", tiny_model / "manifest.json", "--examples", examples, "--split", split]
        output = tmp_path / name / "manifest.json"
        stage.main(
            [
                str(word)
                for word in [*inputs, "--prompts", 3, "--max-new-tokens", 9, "--output", output, *more]
            ]
        )
        return load(output)

    made = run("vllm", "--backend", "vllm", "--vllm-python", other_python)
    table = pd.read_parquet(made.path("generations.parquet"))
    assert table["response"].tolist() == [" Fish."] * 3 and (table["finished"] == "eos").all()
    assert made.spec["backend"] == "vllm" and "vllm_python" not in made.spec
    other = run("ours")
    assert other.spec == made.spec | {"backend": "transformers"}


def test_the_plan_names_the_backend():
    def plan(**runtime: str) -> Plan:
        return Plan(load_config(merge(read_yaml(ROOT / "config.yaml"), {"runtime": runtime})))

    chosen = plan(generation="vllm", vllm_python=".venv-vllm/bin/python")
    assert chosen.generation_options() == "--vllm-python .venv-vllm/bin/python"
    assert plan().generation_options() == ""
    cell, (evaluation, *_) = SimpleNamespace(seed=1), chosen.config.evaluations
    model = next(name for name, entry in chosen.config.models.items() if entry.source)
    assert chosen.generate(cell, evaluation, f"models/{model}").endswith(" --backend vllm")
    assert "--backend" not in plan().generate(cell, evaluation, f"models/{model}")
    with pytest.raises(ConfigError, match="vllm_python"):
        plan(generation="vllm")
