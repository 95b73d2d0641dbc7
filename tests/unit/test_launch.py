"""One attempt: what is started, what is passed on, what is kept of how it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from training_inputs import Inputs
from w2s import attempts, checkpoints, interruption, launch, store
from w2s.artifact import Artifact
from w2s.errors import ConfigError
from w2s.keys import key_of

SCRIPTS = Path(launch.__file__).parent.parent
HEAD = f"""
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(SCRIPTS)!r})
from w2s import cli
from w2s.artifact import Artifact
def arguments():
    parser = cli.StageParser("A stage of a few lines.")
    parser.output("--output")
    parser.input("--examples", required=False)
    parser.spec("--seed", type=int, default=0)
    parser.option("--micro-batch-size", type=int, default=8)
    return parser
if __name__ == "__main__":
"""
MAKE = "folder = os.path.dirname(sys.argv[2])\nos.makedirs(folder)\nopen(sys.argv[2], 'w').write('{}')\n"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler, two devices, lock files of the test's own."""
    monkeypatch.setenv("W2S_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


class Stage:
    """A stage of a few lines, and launch.py with it."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "stage.py"
        self.output = folder / "model" / "manifest.json"
        self.folder = attempts.job_folder(self.output)

    def start(self, code: str, *options: object) -> subprocess.Popen[str]:
        """Start launch.py with a stage of ``code``."""
        self.write(code)
        words = [*options, self.script, "--output", self.output]
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / "w2s" / "launch.py"), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, code: str) -> None:
        """Write the script: ``code`` is what it does when it runs."""
        self.script.write_text(HEAD + textwrap.indent(code or "pass", "    "))

    def run(self, code: str, *options: object) -> tuple[int, str, str]:
        """Exit code and both streams."""
        process = self.start(code, *options)
        streams = process.communicate(timeout=60)
        return process.returncode, *streams

    def outcomes(self) -> list[tuple[str, int]]:
        """Outcome and exit code of the attempts so far."""
        lines = (self.folder / attempts.HISTORY).read_text().splitlines()
        assert sorted(path.name for path in self.folder.iterdir()) == [attempts.HISTORY]
        return [(line["outcome"], line["exit_code"]) for line in map(json.loads, lines)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_success_leaves_the_output_only(stage: Stage) -> None:
    code, text, _ = stage.run(MAKE + "print(os.environ['W2S_JOB_FOLDER'], sys.argv[1:])")
    assert code == 0
    assert text == f"{stage.folder} {['--output', str(stage.output)]}\n"
    assert stage.output.is_file() and not stage.folder.exists()


@pytest.mark.parametrize(
    ("code", "outcome", "exit_code"),
    [
        ("sys.exit(3)", "failed", 3),
        ("1 / 0", "failed", 1),
        ("sys.exit(75)", "interrupted", 75),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "failed", 139),
        ("os.kill(os.getpid(), signal.SIGKILL)", "out-of-memory", 137),
        ("from w2s import cli\ndef main(): raise MemoryError\ncli.run(main)", "out-of-memory", 1),
        (
            "from w2s import cli\nclass OutOfMemoryError(Exception): pass\n"
            "def main(): raise OutOfMemoryError\ncli.run(main)",
            "gpu-out-of-memory",
            1,
        ),
    ],
)
def test_the_outcome_of_a_failure_is_kept(stage: Stage, code: str, outcome: str, exit_code: int) -> None:
    assert stage.run(code)[0] == exit_code
    assert stage.outcomes() == [(outcome, exit_code)]
    assert stage.run(code)[0] == exit_code
    assert attempts.count(stage.output, outcome) == 2
    assert stage.run(MAKE)[0] == 0
    assert not stage.folder.exists()


def test_the_word_of_an_earlier_attempt_is_not_believed(stage: Stage) -> None:
    stage.folder.mkdir()
    (stage.folder / interruption.NOTE).write_text("gpu-out-of-memory")
    assert stage.run("sys.exit(1)")[0] == 1
    assert stage.outcomes() == [("failed", 1)]


@pytest.mark.parametrize(
    ("status", "said", "asked", "killed", "outcome"),
    [
        (1, "gpu-out-of-memory", True, False, "gpu-out-of-memory"),
        (1, "nonsense", False, False, "failed"),
        (1, "", False, True, "out-of-memory"),  # accelerate's code when one of its processes was killed
        (-9, "", False, False, "out-of-memory"),
        (137, "", False, False, "out-of-memory"),
        (-9, "", True, False, "interrupted"),  # did not stop in time
        (1, "", True, False, "interrupted"),  # accelerate's code when it was asked to stop
        (75, "", False, False, "interrupted"),
        (-15, "", False, False, "failed"),
    ],
)
def test_outcomes(status: int, said: str, asked: bool, killed: bool, outcome: str) -> None:
    assert launch.outcome_of(status, said, asked=asked, killed=killed) == outcome


WAIT = """
def stop(number, frame):
    os.write(1, f"got {number}\\n".encode())  # the signal may come while "ready" is still being printed
    sys.exit(ENDING)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("ending", "exit_code"), [(75, 75), (1, 75), (0, 0)])
def test_signals_are_passed_on(stage: Stage, number: signal.Signals, ending: int, exit_code: int) -> None:
    process = stage.start(WAIT.replace("ENDING", str(ending)))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    text, _ = process.communicate(timeout=20)
    assert text == f"got {int(number)}\n"
    assert process.returncode == exit_code
    assert not exit_code or stage.outcomes() == [("interrupted", 75)]


def test_a_signal_before_there_is_a_child_is_passed_on_when_there_is(tmp_path: Path) -> None:
    child = launch.Child()
    child.pass_on(signal.SIGTERM)
    assert child.run(["sleep", "60"], dict(os.environ)) == -signal.SIGTERM
    assert child.signals == [signal.SIGTERM]


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ends(pid: int) -> bool:
    """Whether a process is gone within ten seconds."""
    for _ in range(500):
        if not attempts._runs(pid):
            return True
        time.sleep(0.02)
    return False


def test_a_stage_does_not_outlive_its_launcher(stage: Stage) -> None:
    process = stage.start("print('ready', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (child,) = children_of(process.pid)
    process.kill()
    assert ends(child)
    process.communicate()
    assert stage.run(MAKE)[0] == 0  # its lock is stale at once


def test_two_attempts_do_the_work_once(stage: Stage) -> None:
    slowly = "print('ready', flush=True)\ntime.sleep(3)\n" + MAKE
    first = stage.start(slowly)
    assert first.stdout is not None and first.stdout.readline() == "ready\n"
    code, text, log = stage.run(slowly)
    assert first.wait() == code == 0
    assert text == ""
    assert f"waiting for process {first.pid} on " in log and "nothing is left to do" in log
    first.communicate()
    assert stage.output.is_file() and not stage.folder.exists()


def test_other_arguments_are_other_work(stage: Stage) -> None:
    def work(code: str, *words: str) -> str | None:
        stage.write(code)
        return key_of(
            launch.work_of(str(stage.script), ["--output", str(stage.output), *words]), stage.script
        )

    same = work("a = 1", "--seed", "1")
    assert work("a = 1  # said otherwise", "--seed", "1", "--micro-batch-size", "2") == same is not None
    assert work("a = 1", "--seed", "2") != same
    assert work("a = 22", "--seed", "1") != same


def test_who_waits_can_be_asked_to_stop(stage: Stage) -> None:
    first = stage.start("print('ready', flush=True)\ntime.sleep(60)")
    assert first.stdout is not None and first.stdout.readline() == "ready\n"
    second = stage.start("")
    assert second.stderr is not None and "waiting for" in second.stderr.readline()
    second.terminate()
    second.communicate(timeout=10)
    assert second.returncode == 75
    first.terminate()
    first.communicate(timeout=10)
    assert stage.outcomes() == [("interrupted", 75)]


def test_gpus_are_the_childs(stage: Stage) -> None:
    show = MAKE + "print(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert stage.run(show, "--gpus", 1)[:2] == (0, "3\n")
    code, _, errors = stage.run(show, "--gpus", 3, "--layout", "ddp")
    assert code == 2
    assert "error: 3 GPUs are needed and this machine has 2" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "2", "stage.py", "--output", "x/manifest.json"], "at most one GPU"),
        (["--gpus", "-1", "stage.py", "--output", "x/manifest.json"], "negative"),
        (["--layout", "zero9", "stage.py", "--output", "x/manifest.json"], "zero9"),
        ([], "script"),
    ],
)
def test_wrong_uses_are_named(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        launch.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("arguments = None", [], "no function arguments"),
        (HEAD + "    pass", ["--output", "figure.pdf"], "makes no artifact"),
    ],
)
def test_what_cannot_be_launched_is_named(stage: Stage, script: str, words: list[str], message: str) -> None:
    stage.script.write_text(script)
    with pytest.raises(ConfigError, match=message):
        launch.work_of(str(stage.script), words)


def test_wrong_arguments_are_the_stage_s_to_name(stage: Stage) -> None:
    code, _, errors = stage.run(MAKE, "--gpus", 3, "--layout", "ddp")
    assert code == 2 and "this machine has 2" in errors
    stage.write(MAKE)
    words = [
        sys.executable,
        SCRIPTS / "w2s" / "launch.py",
        stage.script,
        "--output",
        stage.output,
        "--sed",
        "1",
    ]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 2
    assert "unrecognized arguments: --sed 1" in done.stderr
    assert not stage.folder.exists()


LAUNCHED = re.findall(
    r"launch .* scripts/(\w+)\.py",
    "".join(path.read_text() for path in (SCRIPTS.parent / "rules").glob("*.smk")),
)


@pytest.mark.parametrize("name", LAUNCHED)
def test_each_stage_of_a_rule_can_be_launched(name: str) -> None:
    with pytest.raises(SystemExit) as stop:  # its own parser is asked
        launch.work_of(str(SCRIPTS / f"{name}.py"), ["--help"])
    assert stop.value.code == 0


def test_commands() -> None:
    assert launch.command("single", 1, ["s.py", "a"]) == [sys.executable, "s.py", "a"]
    assert launch.command("ddp", 0, ["s.py"]) == [sys.executable, "s.py"]
    words = launch.command("fsdp", 4, ["s.py", "a"])
    assert words[1:3] == ["-m", "accelerate.commands.launch"]
    assert words[-2:] == ["s.py", "a"]
    assert words[words.index("--num_processes") + 1] == "4"
    for layout in ("ddp", "fsdp"):
        words = launch.command(layout, 1, ["s.py"])
        assert Path(words[words.index("--config_file") + 1]).is_file()


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("0::/jobs/one", "jobs/one/memory.events"),
        ("0::/", "memory.events"),
        ("4:cpu,memory:/jobs/one", "memory/jobs/one/memory.oom_control"),
        ("0::/../not/seen/from/here", "memory.events"),
    ],
)
def test_kills_for_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, record: str
) -> None:
    monkeypatch.setattr(launch, "CONTROL_GROUPS", tmp_path)
    stock = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda path, **more: line if str(path) == "/proc/self/cgroup" else stock(path, **more),
    )
    assert launch.memory_kills() == 0
    path = tmp_path / record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("oom 7\noom_kill_disable 0\noom_kill 5\n")
    assert launch.memory_kills() == 5


def test_it_needs_the_standard_library_only() -> None:
    command = [sys.executable, "-S", str(SCRIPTS / "w2s" / "launch.py"), "--help"]
    done = subprocess.run(command, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--layout {single,ddp,fsdp}" in done.stdout


# Runs a stage; its first process sends SIGTERM to launch.py in the fifth step of the first attempt.
DRIVER = """
import json, os, runpy, signal, sys
from pathlib import Path
sys.path.insert(0, os.path.dirname(STAGE))
from train_student_sft import arguments
def on_step_begin(self, args, state, control, **rest):
    if state.global_step == 4 and state.is_world_process_zero and not (folder / "attempts.jsonl").exists():
        os.kill(json.loads((folder / "lock.1").read_text())["pid"], signal.SIGTERM)
if __name__ == "__main__":
    from w2s import trainers
    sys.argv[0] = STAGE
    folder = Path(os.environ["W2S_JOB_FOLDER"])
    trainers.Watch.on_step_begin = on_step_begin
    runpy.run_path(STAGE, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.prove
def test_two_processes_are_interrupted_and_continue(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2s.artifact import load, verify

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    driver, stage = tmp_path / "driver.py", SCRIPTS / "train_student_sft.py"
    driver.write_text(f"STAGE = {str(stage)!r}{DRIVER}")

    def run(output: Path, script: Path) -> subprocess.CompletedProcess[str]:
        words = inputs.arguments(output, "--epochs", 30, "--save-steps", 0, "--dropout", 0.1)
        command = [sys.executable, SCRIPTS / "w2s" / "launch.py", "--gpus", 0, "--layout", "ddp"]
        command += ["--processes", 2, script, *words]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)

    whole, output = tmp_path / "whole" / "manifest.json", tmp_path / "again" / "manifest.json"
    stopped = run(output, driver)
    assert stopped.returncode == 75, stopped.stderr
    assert attempts.count(output, "interrupted") == 1 and not output.exists()
    (checkpoint,) = checkpoints.state_root(output).glob("*/checkpoint-*")
    for script, target in ((driver, output), (stage, whole)):
        done = run(target, script)
        assert done.returncode == 0, done.stderr
        verify(target)
    assert load(output).run["measured"]["processes"] == 2
    assert load(output).run["measured"]["resumed_from_step"] == checkpoints.step_of(checkpoint) < 120
    assert load(output).manifest["files"] == load(whole).manifest["files"]
    assert not attempts.job_folder(output).exists()
    assert not checkpoints.state_root(output).exists()


@pytest.mark.slow
def test_one_process_may_be_launched_as_several_are(inputs: Inputs, tmp_path: Path) -> None:
    from w2s.artifact import load

    output = tmp_path / "model" / "manifest.json"
    words = [str(SCRIPTS / "train_student_sft.py"), *inputs.arguments(output)]
    command = [sys.executable, str(SCRIPTS / "w2s" / "launch.py"), "--layout", "ddp", "--processes", "1"]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load(output).run["measured"]["processes"] == 1


# -- work that was done unseen -----------------------------------------------------------------------------------

ARTIFACT = """
def main():
    args = arguments().parse_args()
    print("working")
    with Artifact.create(args.output, spec=args.spec, parents={}, script=__file__) as draft:
        draft.path("weights").write_text("w")
cli.run(main)
"""


def test_work_that_was_done_unseen_is_not_repeated(stage: Stage) -> None:
    """Snakemake deletes the manifest before a job: the rest of the artifact is still there."""
    assert stage.run(ARTIFACT)[:2] == (0, "working\n")
    manifest = stage.output.read_bytes()
    stage.output.unlink()
    state = checkpoints.state_root(stage.output)
    state.mkdir()  # it was killed when its artifact stood and its checkpoints were not yet removed
    assert stage.run(ARTIFACT)[:2] == (0, "")
    assert stage.output.read_bytes() == manifest
    assert not stage.folder.exists() and not state.exists()


def test_what_another_has_made_is_fetched_without_a_gpu(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "store"))
    assert stage.run(ARTIFACT)[:2] == (0, "working\n")
    manifest = stage.output.read_bytes()
    shutil.rmtree(stage.output.parent)
    assert stage.run("sys.exit(75)")[0] == 75  # other code was interrupted and left its history
    assert stage.folder.is_dir()
    assert stage.run(ARTIFACT, "--gpus", 9, "--layout", "ddp")[:2] == (0, "")
    assert stage.output.read_bytes() == manifest
    assert not stage.folder.exists()


def test_work_on_another_input_or_by_other_code_is_done(stage: Stage, tmp_path: Path) -> None:
    parent = tmp_path / "parent" / "manifest.json"

    def run(text: str, code: str = ARTIFACT) -> str:
        with Artifact.create(parent, spec={}, parents={}) as draft:
            draft.path("text").write_text(text)
        stage.write(code)
        words = [stage.script, "--output", stage.output, "--examples", parent]
        command = [sys.executable, str(SCRIPTS / "w2s" / "launch.py"), *map(str, words)]
        stage.output.unlink(missing_ok=True)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run("one") == "working\n"
    assert run("one") == ""
    assert run("two") == "working\n", "another input"
    assert run("two", "\nADDED = 1\n" + ARTIFACT) == "working\n", "other code"
