"""A network in an ONNX file as a module of torch: opened by onnxruntime, held against its declaration, run on the processor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import first_line, listing, sizes
from bench.features.backends import need_onnxruntime
from bench.features.onnx_spec import OnnxSpec

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_AXES = {"vector": "[N, D]", "map": "[N, C, h, w]", "classes": "[N, K]", "boxes": "[N, P, C] each"}


class OnnxNetwork(nn.Module):
    """Scaled pictures [N, 3, H, W], red first, or examples of sound [N, 1, T, F] -> what the file's network gives, as declared:
    vectors [N, D], maps [N, C, h, w], logits [N, K]; of boxes the raw outputs, a list.

    It computes with as many threads as torch has. Raises BenchError where the file cannot be opened or is another network than
    `document` declares.
    """

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        super().__init__()
        self.path, self.digest = path, file_digest(path)
        own = OnnxSpec.model_validate({key: value for key, value in document.items() if key != "vectors"})
        self.source, self.output = own.input, own.output
        self._session = _opened(path)
        self._input, self._type, self._one_by_one = self._find_input()
        self._names = self._find_outputs()
        self.forward(
            torch.zeros(1, *self._wanted())
        )  # now and not at the first clip: what the file gives is seen only so

    def forward(self, numbers: Tensor) -> Any:
        found = self.raw(numbers)
        if self.output.gives == "boxes":
            return found
        axes = 4 if self.output.gives == "map" else 2
        values = found[0]
        if self.output.gives == "vector":  # a mean over places of which one is left keeps its axes in many exports
            values = values.flatten(1) if values[0].numel() == values.shape[1] else values
        if values.ndim != axes or len(found) > 1:
            raise BenchError(
                f"{self.path} gives {listing([sizes(value.shape) for value in found])} where output.gives: {self.output.gives} "
                f"is {_AXES[self.output.gives]}: correct it, or name the output with output.names"
            )
        if self.output.gives == "map" and self.output.layout == "nhwc":
            values = values.movedim(3, 1)
        return values.log() if self.output.gives == "classes" and not self.output.softmax else values

    forward_features = forward  # as networks of timm call their maps

    def raw(self, numbers: Tensor) -> list[Tensor]:
        """The outputs as they come, in float32."""
        values = numbers.flip(1) if self.source.colours == "bgr" else numbers
        if self.source.layout == "nhwc":
            values = values.movedim(1, 3)
        given = np.ascontiguousarray(values.cpu().numpy().astype(self._type))
        parts = np.split(given, len(given)) if self._one_by_one else [given]
        try:
            found = [self._session.run(self._names, {self._input: part}) for part in parts]
        except Exception as error:  # whatever onnxruntime raises of its own
            raise BenchError(f"{self.path} cannot be run as it is declared: {_told(error)}") from error
        together = [np.concatenate([part[number] for part in found]) for number in range(len(self._names))]
        return [torch.from_numpy(value.astype(np.float32)).to(numbers.device) for value in together]

    def _wanted(self) -> tuple[int, ...]:
        """The shape of one input, channels first."""
        if self.source.sound is not None:
            return 1, self.source.sound.steps, self.source.sound.bands
        assert self.source.size is not None
        return 3, *self.source.size

    def _find_input(self) -> tuple[str, Any, bool]:
        inputs = {item.name: item for item in self._session.get_inputs()}
        name = self.source.name or next(iter(inputs))
        if name not in inputs or len(inputs) != 1:
            raise BenchError(
                f"{self.path} reads {listing(inputs)}, but the spec declares one input{f', {name}' if self.source.name else ''}: "
                f"correct input.name, or export the network with one input"
            )
        kind, shape = inputs[name].type, list(inputs[name].shape)
        wanted = self._wanted()
        wanted = (*wanted[1:], wanted[0]) if self.source.layout == "nhwc" else wanted
        if kind not in _TYPES:
            raise BenchError(f"{self.path}: input {name} is a {kind}, but must be one of {listing(_TYPES)}")
        if len(shape) == len(wanted) + 1 and any(not isinstance(side, int) for side in shape[1:]):
            seen = "x".join(str(side) if isinstance(side, int) else "?" for side in shape[1:])
            raise BenchError(
                f"{self.path}: input {name} is {seen} with open axes, and only the first, of pictures at once, may be open: "
                f"export it with the fixed size {sizes(wanted)}"
            )
        if tuple(shape[1:]) != wanted:
            raise BenchError(
                f"{self.path}: input {name} is {sizes(shape[1:])}, but the spec declares {sizes(wanted)}: correct input.size or "
                f"input.layout"
            )
        batch = shape[0]
        if isinstance(batch, int) and batch != 1:
            raise BenchError(
                f"{self.path}: input {name} takes {batch} at once: export it for one, or with that axis open"
            )
        return name, _TYPES[kind], isinstance(batch, int)

    def _find_outputs(self) -> list[str]:
        outputs = [item.name for item in self._session.get_outputs()]
        asked = self.output.names or (outputs if self.output.gives == "boxes" else outputs[:1])
        absent = [name for name in asked if name not in outputs]
        if absent:
            raise BenchError(f"{self.path} has no output {absent[0]}; it has {listing(outputs)}: correct output.names")
        return list(asked)


def _opened(path: Path) -> Any:
    runtime = need_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said by the error; the rest is for its developers
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # threads that wait leave the cores to others
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime raises of its own
        operator = re.search(
            r"No Op registered for (\S+)|[Ff]atal error: (\S+) is not a registered|implementation for (\w+)", str(error)
        )
        if operator:
            name = next(filter(None, operator.groups()))
            raise BenchError(
                f"{path} needs the operator {name}, which onnxruntime {runtime.__version__} does not have: export the network "
                f"with standard operators, or install a newer onnxruntime"
            ) from error
        raise BenchError(f"{path} cannot be opened as an ONNX network: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The first line of what onnxruntime says, without its numbers."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))
