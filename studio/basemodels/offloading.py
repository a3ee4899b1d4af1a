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
    backwards, saved = _Backwards(), _SavedWeights(device)
    for module in denoiser.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(_HOOK) if registry else None
        if hook is not None:
            saved.watch(hook.group)
            module.register_forward_hook(backwards.watch(hook.group, stays=module is denoiser))
    denoiser.register_forward_pre_hook(saved.begin)
    denoiser.register_forward_hook(saved.end, always_call=True)


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


class _SavedWeights:
    """For the way back autograd keeps what a product was made of. Of a fetched weight it shall keep which one it was:
    the numbers would hold every block on the device, and are fetched again by then.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._owners: dict[int, nn.Parameter] = {}  # by the address of the memory that it was fetched into
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def watch(self, group: Any) -> None:
        onload, offload = group.onload_, group.offload_
        weights = [p for module in group.modules for p in module.parameters()] + list(group.parameters)
        plain = [p for p in weights if not hasattr(p, "__tensor_flatten__")]  # not those in few bits

        def fetched() -> None:
            onload()
            self._owners |= {_address(p): p for p in plain}

        def left() -> None:
            for p in plain:
                self._owners.pop(_address(p), None)
            offload()

        group.onload_, group.offload_ = fetched, left

    def begin(self, *_: Any) -> None:
        self._hooks.__enter__()

    def end(self, *_: Any) -> None:
        self._hooks.__exit__()

    def _pack(self, tensor: Tensor) -> Any:
        owner = None if hasattr(tensor, "__tensor_flatten__") else self._owners.get(_address(tensor))
        return tensor if owner is None else (owner, tensor.shape, tensor.stride(), tensor.storage_offset())

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        owner, *view = kept
        return owner.data.to(self.device).as_strided(*view)


def _address(tensor: Tensor) -> int:
    return tensor.data.untyped_storage().data_ptr()


def _tensors(output: Any) -> list[Tensor]:
    """All tensors in what a module answers."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [tensor for part in output for tensor in _tensors(part)] if isinstance(output, (list, tuple)) else []
