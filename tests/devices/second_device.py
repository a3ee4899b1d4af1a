"""A pretend accelerator, made of CPU memory: what was left on the CPU, or never came back, raises as it would on a GPU.

Importing this file registers the device "away" with torch; `pretend()` makes it the accelerator that torch finds, until
it is left. Every operation runs on the CPU's own kernels, so results are the CPU's numbers; but one that is given
tensors of both devices raises RuntimeError, as CUDA does (one-number CPU tensors, copies, and indexing of an away
tensor by a CPU index are allowed, as there). Autocast works as on CUDA for the operations that models are made of.

`MEMORY` counts what tensors hold, as the caching allocator's `memory_allocated` would, and raises
torch.OutOfMemoryError above its limit.

What an operation raises on the way back is raised when that is done; what a hook raises there ends the process.
What it cannot show: speed, streams, kernels that work apart from Python, torch.compile, what kernels take meanwhile.
"""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # before functions of torch are replaced, some of which it registers
from torch.utils._device import _device_constructors
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "away"
GIB = 2**30

aten = torch.ops.aten
MAY_MIX = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor, aten.lift_fresh.default}  # as on CUDA
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor}
FACTORIES = (
    "empty.memory_format", "empty_strided", "eye", "eye.m", "arange", "arange.start", "arange.start_step", "randperm",
    "linspace", "logspace", "range", "range.step", "tril_indices", "triu_indices",
)  # fmt: skip
LOWER = (  # what autocast runs in its dtype, as on CUDA
    "mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "conv1d", "conv2d", "conv3d", "convolution", "einsum",
    "scaled_dot_product_attention", "mv", "addmv", "addbmm",
)  # fmt: skip
FLOAT32 = (  # and what it runs in float32
    "layer_norm", "group_norm", "softmax.int", "log_softmax.int", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
    "norm.Scalar", "norm.ScalarOpt_dim", "pow.Tensor_Scalar", "exp", "log", "rsqrt", "reciprocal", "sum", "prod",
    "cumsum", "cosine_similarity", "erfinv", "acos", "asin", "cosh", "tan",
)  # fmt: skip


# Memory --------------------------------------------------------------------------------------------------------------


class Memory:
    """Bytes that away tensors hold: views of one storage count once."""

    def __init__(self) -> None:
        self.total, self.allocated, self.peak, self.emptied = 8 * GIB, 0, 0, 0
        self.limit: int | None = None  # above which an allocation raises; None: the total
        self._held: weakref.WeakValueDictionary[int, _Held] = weakref.WeakValueDictionary()

    def hold(self, raw: torch.Tensor) -> "_Held":
        """What a tensor keeps as long as it lives. Raises torch.OutOfMemoryError."""
        storage = raw.untyped_storage()
        held = self._held.get(storage._cdata)
        if held is None:
            size = storage.nbytes()
            most = self.total if self.limit is None else self.limit
            if self.allocated + size > most:
                _fail(
                    torch.OutOfMemoryError(
                        f"{NAME} out of memory. Tried to allocate {size} bytes; "
                        f"{self.allocated} of {most} are allocated."
                    )
                )
            held = self._held[storage._cdata] = _Held(self, size, storage)
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        return held


class _Held:
    """A storage in use. It keeps the storage itself, so that no other one gets its address."""

    def __init__(self, memory: Memory, size: int, storage: torch.UntypedStorage):
        self.memory, self.size, self.storage = memory, size, storage

    def __del__(self) -> None:
        self.memory.allocated -= self.size


MEMORY = Memory()
_failed: list[Exception] = []  # on a way back under way


def _fail(error: Exception) -> None:
    """Raise it; on the way back only when that is done: there, an exception of Python's would end the process."""
    if torch._C._current_autograd_node() is not None:
        _failed.append(error)
        return
    try:
        raise error
    finally:
        del error  # else it holds its own frame, and with that the tensors of all above


def _raising_behind(backward: Any) -> Any:
    """torch.autograd.backward or grad."""

    def behind(*args: Any, **kwargs: Any) -> Any:
        try:
            out = backward(*args, **kwargs)
        finally:
            failed = list(_failed)
            _failed.clear()
        if failed:
            raise failed[0]
        return out

    return behind


# What torch asks of torch.away ---------------------------------------------------------------------------------------


class _Module(_DummyBackendModule):
    available, bf16 = False, True

    def is_available(self):
        return self.available

    def device_count(self):
        return int(self.available)

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16, torch.float32]

    def get_device_name(self, *_):
        return "pretend device"

    def is_bf16_supported(self, including_emulation=True):
        return self.bf16 or including_emulation

    def mem_get_info(self, *_):
        most = MEMORY.total if MEMORY.limit is None else MEMORY.limit
        return max(0, most - MEMORY.allocated), MEMORY.total

    def memory_reserved(self, *_):
        return MEMORY.allocated

    memory_allocated = memory_reserved

    def max_memory_allocated(self, *_):
        return MEMORY.peak

    def reset_peak_memory_stats(self, *_):
        MEMORY.peak = MEMORY.allocated

    def empty_cache(self, *_):
        MEMORY.emptied += 1

    def synchronize(self, *_):
        return None

    def get_rng_state(self, *_, **__):
        return torch.get_rng_state()

    def set_rng_state(self, *_, **__):
        return None

    def device(self, *_):
        return contextlib.nullcontext()

    def set_device(self, *_):
        return None

    def current_stream(self, *_):
        return None

    def is_in_bad_fork(self):
        return False


MODULE = _Module()
_setup_privateuseone_for_python_backend(NAME, MODULE)
DEVICE = torch.device(f"{NAME}:0")


# Tensors -------------------------------------------------------------------------------------------------------------


class Away(torch.Tensor):
    """A tensor on the pretend device. `_raw` is the CPU tensor that holds its numbers."""

    _raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor, requires_grad: bool = False):
        held = MEMORY.hold(raw)
        new = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=DEVICE,
            requires_grad=requires_grad,
        )  # fmt: skip
        new._raw, new._held = raw, held
        return new

    def __repr__(self, **_: Any) -> str:
        return f"Away({self._raw})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Away":
        if id(self) not in memo:
            new = Away(self._raw.clone(), self.requires_grad)
            if getattr(self, "_is_param", False):
                new._is_param = True
            memo[id(self)] = new
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> Any:  # saved as CPU tensors, which `map_location="cpu"` makes of a GPU's
        return self._raw.detach().__reduce_ex__(protocol)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_lists_as_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_lists_as_tensors(index), value)

    def tolist(self) -> Any:
        return self._raw.tolist()

    def data_ptr(self) -> int:
        return self._raw.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self._raw.untyped_storage()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **options})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found: list[torch.Tensor] = []
        raw_args = _raw(args, found)
        raw_kwargs = {key: _raw(value, found) for key, value in kwargs.items()}
        _refuse_mixed(func, args, found)
        home = False
        if raw_kwargs.get("device") is not None:
            home = torch.device(raw_kwargs["device"]).type == "cpu"
            raw_kwargs["device"] = torch.device("cpu")
        # A view of an ordinary tensor is an ordinary one in inference mode as well.
        ordinary = torch.is_inference_mode_enabled() and any(not t.is_inference() for t in found)
        with torch.inference_mode(False) if ordinary else contextlib.nullcontext():
            out = func(*raw_args, **raw_kwargs)
            if "out" in kwargs:
                return _as_long_as_its_raw(kwargs["out"])
            name = func.overloadpacket.__name__
            if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], torch.Tensor):
                return _as_long_as_its_raw(args[0])  # in place: the same tensor goes back
            return out if home else _wrapped(out)


def _as_long_as_its_raw(x: Any) -> Any:
    """The tensor itself, with the shape that an operation in place gave its numbers."""
    if isinstance(x, Away) and (x.shape != x._raw.shape or x.stride() != x._raw.stride()):
        fresh = Away(x._raw)
        _own_data.__set__(x, fresh)
        x._held = fresh._held
    return x


def _refuse_mixed(func: Any, args: Any, found: list[torch.Tensor]) -> None:
    """As CUDA does. found: every tensor among the arguments."""
    left = [t for t in found if not isinstance(t, Away) and t.dim() > 0]
    if not left or len(left) == len(found) or func in MAY_MIX:
        return
    if func in INDEXED and isinstance(args[0], Away) and all(isinstance(value, Away) for value in args[2:3]):
        return
    shapes = [tuple(t.shape) for t in left]
    _fail(
        RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
            f"({func}, of shapes {shapes} on the CPU)"
        )
    )


def _raw(x: Any, found: list[torch.Tensor]) -> Any:
    """x with the CPU tensors in place of the away ones; every tensor goes into `found`."""
    if isinstance(x, torch.Tensor):
        found.append(x)
        return x._raw if isinstance(x, Away) else x
    if isinstance(x, (list, tuple)):
        return type(x)([_raw(value, found) for value in x])
    return x


def _lists_as_tensors(index: Any) -> Any:
    """torch would make a tensor of a list on this device without asking Python, which fails."""
    if isinstance(index, tuple):
        return tuple(_lists_as_tensors(part) for part in index)
    return torch.tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


def _as_numbers(data: Any) -> Any:
    """Lists that hold tensors of one number, as lists of numbers: torch.tensor reads such a tensor without Python."""
    if isinstance(data, (list, tuple)):
        return type(data)([_as_numbers(value) for value in data])
    return data.tolist() if isinstance(data, Away) else data


def _wrapped(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x if isinstance(x, Away) else Away(x)
    if isinstance(x, (list, tuple)):
        return type(x)([_wrapped(value) for value in x])
    return x


# Kernels: for what is made on the device without any tensor that lies there ------------------------------------------


def _on_cpu(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None and key not in ("device", "pin_memory")}


def _operation(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _factory(name: str) -> Any:
    make = _operation(name)
    return lambda *args, **kwargs: Away(make(*args, **_on_cpu(kwargs)))


def _anything_else(op: Any, *args: Any, **kwargs: Any) -> Any:
    return _wrapped(op(*_raw(args, []), **{key: _raw(value, []) for key, value in _on_cpu(kwargs).items()}))


_library = torch.library.Library("aten", "IMPL")
for _name in FACTORIES:
    _library.impl(_name, _factory(_name), "PrivateUse1")
_fallback = torch.library.Library("_", "IMPL")
_fallback.fallback(_anything_else, "PrivateUse1")
_fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")

_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def _cast(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, torch.Tensor):
        return x.to(dtype) if x.device.type == NAME and x.is_floating_point() and x.dtype != torch.float64 else x
    if isinstance(x, (list, tuple)):
        return type(x)([_cast(value, dtype) for value in x])
    return x


def _in(name: str, dtype: torch.dtype | None) -> Any:
    op = _operation(name)

    def run(*args: Any, **kwargs: Any) -> Any:
        wanted = dtype or torch.get_autocast_dtype(NAME)
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return op(*_cast(args, wanted), **{key: _cast(value, wanted) for key, value in kwargs.items()})

    return run


for _names, _dtype in ((LOWER, None), (FLOAT32, torch.float32)):
    for _name in _names:
        _library.impl(_name, _in(_name, _dtype), "AutocastPrivateUse1")


# In torch's place ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pretend(limit: int | None = None, total: int = 8 * GIB, bf16: bool = True) -> Iterator[Memory]:
    """The pretend device is the accelerator that torch finds, until this is left. Yields its memory.

    limit: bytes above which it is out of memory. bf16: whether it computes in bfloat16 by itself.
    """
    accelerator = {
        "current_accelerator": lambda check_available=False: torch.device(NAME),
        "is_available": lambda: True,
        "get_memory_info": MODULE.mem_get_info,
        **{name: getattr(MODULE, name) for name in ("memory_reserved", "memory_allocated", "max_memory_allocated")},
        **{name: getattr(MODULE, name) for name in ("reset_peak_memory_stats", "empty_cache", "synchronize")},
    }
    _device_constructors()  # remembers torch's own functions, before others stand in their place
    with contextlib.ExitStack() as stack:
        for name, function in accelerator.items():
            stack.enter_context(mock.patch.object(torch.accelerator, name, function))
        for name in ("tensor", "as_tensor", "asarray"):
            stack.enter_context(mock.patch.object(torch, name, _made_here_first(getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "_has_compatible_shallow_copy_type", _can_take_data))
        stack.enter_context(mock.patch.object(torch.Tensor, "data", property(_data, _set_data), create=True))
        stack.enter_context(mock.patch.multiple(MODULE, create=True, available=True, bf16=bf16))
        stack.enter_context(mock.patch.multiple(MEMORY, limit=limit, total=total, emptied=0))
        for name in ("backward", "grad"):
            stack.enter_context(mock.patch.object(torch.autograd, name, _raising_behind(getattr(torch.autograd, name))))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        MEMORY.peak = MEMORY.allocated
        yield MEMORY


def _made_here_first(make: Any) -> Any:
    """torch.tensor and its like build what they are given on the CPU, and crash when that is to go to this device."""

    def made(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> torch.Tensor:
        if requires_grad:
            options["requires_grad"] = requires_grad
        if isinstance(data, (list, tuple)):
            data = _as_numbers(data)
        if device is None or torch.device(device).type != NAME:
            return make(data, **({} if device is None else {"device": device}), **options)
        if isinstance(data, torch.Tensor):
            return data.to(device, options.get("dtype"))
        return make(data, device="cpu", **options).to(device)

    return lambda data, dtype=None, device=None, **options: made(
        data, device=device, **({} if dtype is None else {"dtype": dtype}), **options
    )


# A parameter that moves stays the same object, as on CUDA: `module.to` writes `parameter.data`. torch refuses that for
# tensors of different types, so here their insides are swapped.

_own_data = torch._C.TensorBase.data
_own_check = torch._has_compatible_shallow_copy_type


def _can_take_data(one: torch.Tensor, other: torch.Tensor) -> bool:
    return isinstance(one, Away) or isinstance(other, Away) or _own_check(one, other)


def _data(self: torch.Tensor) -> torch.Tensor:
    return _own_data.__get__(self)


def _set_data(self: torch.Tensor, new: torch.Tensor) -> None:
    if not isinstance(self, Away) and not isinstance(new, Away):
        _own_data.__set__(self, new)
        return
    if new is self:
        return
    is_parameter = isinstance(self, torch.nn.Parameter)
    fresh: torch.Tensor = Away(new._raw.detach()) if isinstance(new, Away) else new.detach()
    was = {name: self.__dict__.pop(name) for name in ("_raw", "_held") if name in self.__dict__}
    fresh.requires_grad_(self.requires_grad)
    grad = self.grad
    self.grad = None
    torch._C._swap_tensor_impl(self, fresh)
    if isinstance(new, Away):
        self.__dict__.update(_raw=fresh._raw, _held=fresh._held)  # type: ignore[attr-defined]
    if is_parameter:
        self._is_param = True  # type: ignore[attr-defined]
    # A graph may hold the insides that were swapped out: they go on as what they were.
    fresh.__dict__.clear()
    fresh.__dict__.update(was)
    fresh.__class__ = Away if was else torch.Tensor
    self.__class__ = Away if isinstance(new, Away) else torch.nn.Parameter if is_parameter else torch.Tensor
    if grad is not None:
        grad.data = grad.data.to(self.device)
        self.grad = grad
