"""Runs a script to its first batch and says what that took: ``python first_batch.py SCRIPT ARGUMENTS``.

The first batch is the first look-up of embeddings, which any language model begins with. A script without a model runs
to the end of its imports instead: everything that it and the modules of w2s that it uses import anywhere, with
``python first_batch.py --imports SCRIPT``. The last line written is JSON: processor and wall seconds since this process
began (its children's included), and the packages that are loaded. A script that has a model and no batch runs to its end:
``--whole``.
"""

from __future__ import annotations

import os
import sys
import time

LOOK_UP = "torch.nn.functional"


def seconds() -> dict[str, float]:
    """Processor and wall seconds of this process."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    wall = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return {"processor": sum(os.times()[:4]), "wall": wall}


def stop(*_args: object, **_settings: object) -> None:
    """Say what it took and end."""
    took = seconds()
    import json

    packages = sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))
    os.write(1, (json.dumps({**took, "packages": packages}) + "\n").encode())
    os._exit(0)


class Trap:
    """Ends the process at the first call of ``torch.nn.functional.embedding``."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        """The module's usual specification, with a loader that sets the trap."""
        from importlib.machinery import PathFinder

        if name != LOOK_UP:
            return None
        spec = PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        load = spec.loader.exec_module  # type: ignore[union-attr]

        def execute(module: object) -> None:
            load(module)  # type: ignore[arg-type]
            setattr(module, "embedding", stop)  # noqa: B010

        setattr(spec.loader, "exec_module", execute)  # noqa: B010
        return spec


def imported(source: str, folder: str, seen: set[str]) -> list[str]:
    """Modules that a source and the project's modules among them import anywhere but for type checkers, in order."""
    import ast

    found: list[str] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"w2s.{name.name}" for name in node.names] if node.module == "w2s" else [node.module]
        waiting += ast.iter_child_nodes(node)
    new = [name for name in dict.fromkeys(found) if name not in seen]
    seen.update(new)
    for name in [name for name in new if name.startswith("w2s.")]:
        with open(os.path.join(folder, *name.split(".")) + ".py", encoding="utf-8") as file:
            new += imported(file.read(), folder, seen)
    return new


def load_all(script: str, folder: str) -> None:
    """Import what a script may import, its own modules first as it does."""
    with open(script, encoding="utf-8") as file:
        names = imported(file.read(), folder, set())
    for name in sorted(names, key=lambda name: not name.startswith("w2s.")):
        __import__(name)


def main(arguments: list[str]) -> None:
    """The command line."""
    import runpy

    mode = arguments.pop(0) if arguments[0].startswith("--") else ""
    script = arguments[0]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    if mode == "--imports":
        load_all(script, sys.path[0])
        stop()
    if LOOK_UP in sys.modules:  # forked from a process that has the libraries
        setattr(sys.modules[LOOK_UP], "embedding", stop)  # noqa: B010
    elif not mode:
        sys.meta_path.insert(0, Trap())
    sys.argv = arguments
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if mode == "--whole" and not end.code:
            stop()
        raise
    raise SystemExit(f"{script} ended before its first batch")


if __name__ == "__main__":
    main(sys.argv[1:])
