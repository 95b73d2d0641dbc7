"""Run a script with fully sharded data parallelism on the CPU: ``python fsdp_on_cpu.py script.py ...``.

torch shards over gloo as well, but accelerate takes FSDP for GPUs only and would quietly fall back to DDP. The three
lines that matter here lift that, so that sharded checkpoints and the gathering of the model can be tested anywhere.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import accelerate
import accelerate.state
from accelerate.utils import DistributedType

stock = accelerate.state.AcceleratorState.__init__


def keep_the_plugin(self: Any, *arguments: Any, fsdp_plugin: Any = None, **settings: Any) -> None:
    """``AcceleratorState.__init__``, which forgets the plugin on a CPU."""
    stock(self, *arguments, fsdp_plugin=fsdp_plugin, **settings)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = DistributedType.FSDP


if __name__ == "__main__":
    accelerate.state.AcceleratorState.__init__ = keep_the_plugin
    accelerate.state.AcceleratorState.is_fsdp2 = property(lambda state: True)
    accelerate.Accelerator.distributed_type = property(lambda accelerator: DistributedType.FSDP)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
