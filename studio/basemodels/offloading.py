"""A denoiser that lies in main memory and is fetched block by block, for a GPU that can't hold it whole.

diffusers' group offloading does the fetching on the way forward. Training goes through the blocks backwards as well,
where their weights are needed once more: that is done here.
"""

from typing import Any

import torch
from torch import Tensor, nn

from studio.adapters.layers import EXECUTION_DEVICE

_HOOK = "group_offloading"  # as diffusers calls it


def offload_blocks(denoiser: Any, device: torch.device) -> None:
    """Keep `denoiser` (a model of diffusers, on the CPU) where it is, and fetch each block to `device` to work.

    Adapters on it are kept on the device, and act beside the weights instead of being merged into them.
    """
    for layer in denoiser.modules():
        layer.__dict__[EXECUTION_DEVICE] = device
    denoiser.enable_group_offload(
        onload_device=device, offload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
    )
    backwards = _Backwards()
    for module in denoiser.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(_HOOK) if registry else None
        if hook is not None:
            module.register_forward_hook(backwards.watch(hook.group, stays=module is denoiser))


class _Backwards:
    """Fetches a block when the gradient of its output is there, and sends away the one before."""

    def __init__(self) -> None:
        self.here: Any = None

    def watch(self, group: Any, stays: bool) -> Any:
        """A forward hook. stays: the parts outside of all blocks, which are small and needed first and last."""

        def fetch(_: Tensor) -> None:
            if group is self.here:
                return
            group.onload_()
            if not stays:
                if self.here is not None:
                    self.here.offload_()
                self.here = group

        def after(_: nn.Module, __: tuple, output: Any) -> None:
            if self.here is not None and self.here is not group:  # left from the last way back
                self.here.offload_()
            self.here = None
            for tensor in _tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(fetch)

        return after


def _tensors(output: Any) -> list[Tensor]:
    """All tensors in what a module answers."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [tensor for part in output for tensor in _tensors(part)] if isinstance(output, (list, tuple)) else []
