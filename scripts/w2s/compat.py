"""What torch below 2.6 (the CUDA 12.1 builds) lacks for the locked transformers and trl.

Does nothing from torch 2.6 on. Import it before transformers and trl: ``from w2s import compat``.

Two things are missing there. trl looks for two classes under their public names, which torch had under
private ones until then. And transformers refuses ``torch.load`` below 2.6 (CVE-2025-32434), also for the
optimizer state of a run that is resumed. The guard is lifted for the Trainer, which reads checkpoints of
this workflow's own making; it stays for model weights, which may come from elsewhere.
"""

from __future__ import annotations

import torch

SAFE_LOAD = (2, 6)


def version(text: str) -> tuple[int, int]:
    """Major and minor of a version such as ``2.4.1+cu121``."""
    major, minor = text.split("+")[0].split(".")[:2]
    return int(major), int(minor)


def torch_load_is_safe() -> bool:
    """Whether ``torch.load(weights_only=True)`` of a foreign file is safe with the installed torch."""
    return version(torch.__version__) >= SAFE_LOAD


def public_names() -> None:
    """Give the private classes ``DTensor`` and ``FSDPModule`` the names that newer torch has them under."""
    import torch.distributed.fsdp as fsdp
    import torch.distributed.tensor as tensor

    if not hasattr(tensor, "DTensor"):
        from torch.distributed._tensor import DTensor

        setattr(tensor, "DTensor", DTensor)  # noqa: B010  (a type cannot be assigned to, says mypy)
    if not hasattr(fsdp, "FSDPModule"):
        from torch.distributed._composable.fsdp import FSDPModule

        setattr(fsdp, "FSDPModule", FSDPModule)  # noqa: B010


def resume_from_own_checkpoints() -> None:
    """Let the Trainer read optimizer, scheduler and random states that this workflow wrote."""
    import codecs

    import numpy as np
    import transformers.trainer as trainer

    def accept() -> None:
        return None

    trainer.check_torch_load_is_safe = accept
    reconstruct = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    types = [codecs.encode, reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]
    torch.serialization.add_safe_globals(types)


def apply() -> bool:
    """Fill the gaps if there are any; returns whether there were."""
    if torch_load_is_safe():
        return False
    public_names()
    resume_from_own_checkpoints()
    return True


ACTIVE = apply()
