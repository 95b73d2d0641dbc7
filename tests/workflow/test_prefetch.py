"""One target fetches all that a run needs from outside; a plan without a network says what is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import fakes
import pytest

if TYPE_CHECKING:
    from conftest import Workflow


@pytest.fixture(scope="module")
def workflow(make_workflow: Callable[..., Workflow]) -> Workflow:
    return make_workflow(fakes=True, preset="paper-a", overlay=fakes.FAKE_RUN)


def plan_offline(workflow: Workflow) -> tuple[int, str]:
    done = subprocess.run(
        workflow.command("-n", "--quiet", "rules"), cwd=workflow.folder, text=True,
        env={**workflow.environment, "HF_HUB_OFFLINE": "1", "HF_HOME": str(workflow.folder / "hub")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_what_is_missing_is_told_with_the_plan_and_one_target_fetches_it(workflow: Workflow) -> None:
    code, output = plan_offline(workflow)
    assert code != 0
    assert "is not fetched, and the hubs are switched off (HF_HUB_OFFLINE)" in output
    assert "`snakemake prefetch`" in output

    assert workflow.planned("--cores", "1", "prefetch") == {"fetch": 7, "prefetch": 1}
    workflow.run("prefetch")
    assert not (workflow.folder / "results").exists(), "nothing else is made"
    code, output = plan_offline(workflow)
    assert code == 0, output
    assert "fetch " not in output

    weights = next((workflow.folder / "resources" / "opt-125m").glob("[!mr]*"))
    weights.unlink()
    code, output = plan_offline(workflow)
    assert code != 0
    assert f"source 'opt-125m' was fetched, but {weights.name} is missing or cut short" in output
