"""A pretended GPU on a machine without one: which tensors lie there, where the host waits for it, and what CUDA would refuse.

Tensors stay plain CPU tensors; what marks them as lying on the GPU is an attribute of their storage, so that views share it. A
function mode lets Python see the pretended device (`.device`, `.to`, factories), a dispatch mode sees every operation, those of
the backward pass and of the optimizer too. It measures nothing: no time, no memory, no rounding of real kernels.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
with_the_cpus_torch = pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="a torch that is built for CUDA asks its driver for what is pretended here; on a real GPU: make gpu",
)
ROOT = str(Path(__file__).resolve().parents[1]) + "/"
aten = torch.ops.aten

WAITING = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.equal.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.isin.Tensor_Tensor,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten.multinomial.default,
}
"""Operations whose result, or its size, the host has to know, or which look whether their input is what it should be."""
FREE = {"aten.empty", "aten.empty_like", "aten.new_empty", "aten._unsafe_view", "aten.dropout"}
"""Operations that start nothing: memory without values, views under another name, the dropout of an evaluation."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}

WIDENED = {"softmax", "log_softmax", "sum", "cumsum", "prod"}
"""Functions that give float32 under CUDA's autocast, and bfloat16 under that of the CPU."""


def _lstm_cell(gates: Tensor, more: Tensor, cell: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
    assert gates.dtype == more.dtype == cell.dtype, "the cell of CUDA takes one type"
    own, forget, candidate, output = (gates + more + sum(biases)).chunk(4, 1)
    acts = own.sigmoid(), forget.sigmoid(), candidate.tanh(), output.sigmoid()
    after = acts[1] * cell + acts[0] * acts[2]
    return acts[3] * after.tanh(), after, torch.cat(acts, 1)


def _lstm_cell_backward(
    hidden: Tensor | None, cell: Tensor | None, before: Tensor, after: Tensor, acts: Tensor, biased: bool
) -> tuple[Tensor, ...]:
    kinds = {value.dtype for value in (hidden, cell, before, after, acts) if value is not None}
    assert len(kinds) == 1, f"the cell of CUDA takes one type, not {kinds}"
    own, forget, candidate, output = acts.chunk(4, 1)
    hidden = torch.zeros_like(after) if hidden is None else hidden
    told = after.tanh()
    through = hidden * output * (1 - told * told) + (0 if cell is None else cell)
    gates = torch.cat(
        [
            through * candidate * own * (1 - own),
            through * before * forget * (1 - forget),
            through * own * (1 - candidate * candidate),
            hidden * told * output * (1 - output),
        ],
        1,
    )
    return gates, through * forget, gates.sum(0)


GPU_ONLY = {
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
}
"""Operations that torch has for CUDA alone, as it documents them."""


def is_there(value: Any) -> bool:
    """Whether a tensor lies on the pretended GPU."""
    return isinstance(value, Tensor) and hasattr(value.untyped_storage(), "there")


def _put_there(value: Tensor) -> Tensor:
    value.untyped_storage().there = True  # type: ignore[attr-defined]
    return value


class Seen:
    """What happened: `waits` by place, `mixed` operations by name and place, launched `operations` by name, bytes of `copies` to
    the GPU by place."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.mixed: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        return self.operations.total()

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]

    def copy(self) -> Seen:
        return self.since(Seen())

    def since(self, before: Seen) -> Seen:
        """What happened after `before`, an earlier copy."""
        found = Seen()
        for name, counter in vars(self).items():
            setattr(found, name, counter - getattr(before, name))
        return found


def _place() -> str:
    """The innermost line of the project on the stack, this file left out."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and name != __file__ and not name.startswith(sys.prefix):
            return f"{name.removeprefix(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class _Operations(TorchDispatchMode):
    """Marks what is made of tensors on the GPU, and takes note of waits and of operations that mix sides."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = GPU_ONLY.get(func, func)(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if not any(map(is_there, tensors)):
            return found
        self._check(func, args, tensors)
        returns = func._schema.returns
        view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if not view and str(func.overloadpacket) not in FREE:
            self.seen.operations[str(func)] += 1
        for value in tree_leaves(found):
            if isinstance(value, Tensor):
                _put_there(value)
        return found

    def _check(self, func: Any, args: Any, tensors: list[Tensor]) -> None:
        if func in WAITING:
            self.seen.waits[_place()] += 1
        if func in INDEXING:
            indices = [value for value in args[1] if value is not None]
            if masks := sum(value.dtype == torch.bool for value in indices):
                self.seen.waits[_place()] += masks
            tensors = [args[0], *(value for value in tree_leaves(args[2:]) if isinstance(value, Tensor))]
        if func is aten.copy_.default:  # the one operation that may have both sides
            return
        # CUDA takes numbers in tensors without axes from the CPU, and nothing else.
        if any(not is_there(value) and value.dim() for value in tensors):
            self.seen.mixed[f"{func} at {_place()}"] += 1


class _Python(TorchFunctionMode):
    """What Python sees of the device."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        own, name = args[0] if args else None, getattr(func, "__name__", "")
        if name == "__get__" and is_there(own):
            if func.__self__ is Tensor.device:
                return GPU
            if func.__self__ is Tensor.is_cuda:
                return True
        elif name in ("to", "cpu", "cuda") and isinstance(own, Tensor):
            return self._move(
                own, *args[1:], **kwargs, **{"cpu": {"device": "cpu"}, "cuda": {"device": GPU}}.get(name, {})
            )
        elif func is functional.dropout and is_there(own) and kwargs["training"] and kwargs["p"]:
            return torch.native_dropout(own, kwargs["p"], True)[0]
        elif name == "gru" and is_there(own):
            return _recurrent(self.seen, func, args)
        elif name in WIDENED and is_there(own) and torch.is_autocast_enabled("cpu") and own.dtype == torch.bfloat16:
            return func(*args, **{"dtype": torch.float32, **kwargs})
        elif name == "tolist" and is_there(own):
            self.seen.waits[_place()] += 1
        elif name == "numpy" and is_there(own):
            self.seen.mixed[f"numpy at {_place()}"] += 1
        elif name == "new_tensor" and is_there(own):
            return _put_there(func(*args, **kwargs))
        elif "device" in kwargs and not isinstance(own, nn.Module):
            device = kwargs.pop("device")
            made = func(*args, **kwargs)
            if device is not None and torch.device(device).type == "cuda":
                return _put_there(made)
            with _disable_current_modes():
                return made.detach().clone() if is_there(made) else made
        return func(*args, **kwargs)

    def _move(self, own: Tensor, *words: Any, **more: Any) -> Tensor:
        """`Tensor.to` in all its forms."""
        like = words[0] if words and isinstance(words[0], Tensor) else None
        kinds = [value for value in (*words, more.get("dtype")) if isinstance(value, torch.dtype)]
        places = [value for value in (*words, more.get("device")) if isinstance(value, torch.device | str)]
        kind = kinds[0] if kinds else own.dtype if like is None else like.dtype
        there = (
            is_there(own) if not places and like is None else is_there(like) if like is not None else _is_gpu(places[0])
        )
        value = own if kind == own.dtype else own.to(kind)
        if there == is_there(value):
            return value
        (self.seen.copies if there else self.seen.waits)[_place()] += value.nbytes if there else 1
        assert not (value.requires_grad and torch.is_grad_enabled()), "copies inside a graph are not pretended"
        with _disable_current_modes():
            copy = value.detach().clone()
        return _put_there(copy) if there else copy


class _Recurrent(torch.autograd.Function):
    """Recurrent layers as cuDNN runs them: all steps in one call, and their backward pass in another."""

    @staticmethod
    def forward(ctx: Any, seen: Seen, run: Any, *given: Tensor) -> Any:
        ctx.seen = seen
        with _one_call(seen, "forward"), torch.enable_grad():
            ctx.given = [value.detach().requires_grad_(value.requires_grad) for value in given]
            ctx.found = run(ctx.given)
        return tuple(_put_there(value.detach()) for value in ctx.found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        with _one_call(ctx.seen, "backward"):
            wanted = [value for value in ctx.given if value.requires_grad]
            made = map(_put_there, torch.autograd.grad(ctx.found, wanted, gradients))
            return None, None, *(next(made) if value.requires_grad else None for value in ctx.given)


def _recurrent(seen: Seen, func: Any, args: Any) -> Any:
    values, state, weights, *rest = args
    return _Recurrent.apply(seen, lambda given: func(*given[:2], given[2:], *rest), values, state, *weights)


@contextmanager
def _one_call(seen: Seen, name: str) -> Iterator[None]:
    """What happens inside counts as one operation."""
    before = dict(vars(seen))
    seen.forget()
    try:
        yield
    finally:
        vars(seen).update(before)
        seen.operations[f"cudnn.{name}"] += 1


def _is_gpu(place: torch.device | str) -> bool:
    return str(place).startswith("cuda")


class _Generator:
    """The state of the GPU's generator: a number that counts, in a tensor of the CPU, as CUDA wants it."""

    def __init__(self) -> None:
        self.state = torch.zeros(16, dtype=torch.uint8)

    def get(self, device: Any = None) -> Tensor:
        return self.state.clone()

    def set(self, state: Tensor, device: Any = None) -> None:
        if is_there(state) or state.dtype != torch.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        self.state = state.clone()


@contextmanager
def pretended_gpu() -> Iterator[Seen]:
    """Inside, `cuda` is there, with the autocast of the CPU. Draws come from the CPU's generator, whose state may not be set to
    a tensor of the GPU either."""
    seen, generator = Seen(), _Generator()
    inference_mode = torch.inference_mode
    set_state, by_device = torch.set_rng_state, clip_grad._group_tensors_by_device_and_dtype

    def no_inference(mode: bool = True) -> Any:
        return torch.no_grad() if mode else inference_mode(False)

    autocast, enabled, low = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    def grouped(tensors: Any, *words: Any) -> Any:
        """Gradients by the device that Python sees."""
        groups = by_device(tensors, *words).items()
        return {(GPU if is_there(value[0][0][0]) else key[0], key[1]): value for key, value in groups}

    def set_cpu_state(state: Tensor) -> None:
        if is_there(state):
            raise TypeError("RNG state must be a torch.ByteTensor")
        set_state(state)

    with (
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "device_count", lambda: 1),
        mock.patch.object(torch.cuda, "get_rng_state", generator.get),
        mock.patch.object(torch.cuda, "set_rng_state", generator.set),
        mock.patch.object(torch.cuda, "synchronize", lambda device=None: None),
        mock.patch.object(torch, "set_rng_state", set_cpu_state),
        mock.patch.object(clip_grad, "_group_tensors_by_device_and_dtype", grouped),
        mock.patch.object(torch, "inference_mode", no_inference),
        mock.patch.object(torch, "autocast", lambda kind, *words, **more: autocast("cpu", *words, **more)),
        mock.patch.object(torch, "is_autocast_enabled", lambda kind: enabled("cpu")),
        mock.patch.object(torch, "get_autocast_dtype", lambda kind: low("cpu")),
        _Operations(seen),
        _Python(seen),
    ):
        yield seen
