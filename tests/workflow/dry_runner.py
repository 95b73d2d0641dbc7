"""Dry runs without Snakemake's start-up time: a process that has it loaded forks one child per request.

A request is one line of JSON on standard input, ``{"folder": ..., "arguments": [...]}``; the answer is one line too,
``{"returncode": ..., "output": ...}``. A child sees nothing of the ones before it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

import snakemake.cli
import snakemake.dag
import snakemake.deployment
import snakemake.linting
import snakemake.scheduling
import snakemake.workflow


def child(folder: str, arguments: list[str], output: int) -> int:
    """Be ``snakemake <arguments>`` in ``folder``; returns its exit code."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    try:
        snakemake.cli.main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def answer(folder: str, arguments: list[str]) -> dict[str, object]:
    """Run one request in a child process."""
    with tempfile.TemporaryFile("w+") as output:
        pid = os.fork()
        if pid == 0:
            code = child(folder, arguments, output.fileno())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return {"returncode": os.waitstatus_to_exitcode(status), "output": output.read()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
