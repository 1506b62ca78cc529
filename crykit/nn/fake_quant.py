"""Eight bits felt in floating point: the student as the int8 runtimes will compute it.

Weights are rounded symmetrically with a scale for each output channel, and every tensor between
layers to 256 steps of its range; what falls outside is cut off. Gradients pass as if nothing had
been rounded (the straight-through estimator: Y. Bengio, N. Leonard and A. Courville,
arXiv:1308.3432), so that a network can be fine-tuned to bear it (B. Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).

Batch norm stays as it is. Folding it scales each output channel of the weights by one factor,
and a scale for each channel takes that factor along: rounding before or after is the same.
States need no rounding of their own: they are inputs of a layer, which rounds them again.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crykit.nn.student import Block, CryStudent, TemporalBlock

WEIGHT_STEPS = 127
ACTIVATION_STEPS = 255
RANGE_MEMORY = 0.99
"""Share of a range that stays when a batch of training brings another."""
RANGE_MARK = ".range_"
"""In the names of a prepared student's ranges, which are no weights."""

Mode = Literal["observe", "follow", "fixed"]


def round_weight(weight: Tensor) -> Tensor:
    """Weights (out channels, ...) on 255 steps around zero, a scale for each output channel."""
    scale = weight.detach().flatten(1).abs().amax(dim=1).clamp(min=1e-12) / WEIGHT_STEPS
    zeros = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zeros, 0, -WEIGHT_STEPS, WEIGHT_STEPS
    )


class Range(nn.Module):
    """Rounds a tensor to 256 steps of the range that it has been seen to take.

    ``mode``: "observe" widens the range to all that comes and rounds nothing; "follow" lets it
    follow the batches of training, and rounds; "fixed" rounds.
    """

    range_low: Tensor
    range_high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = "observe"
        self.register_buffer("range_low", torch.zeros(()))
        self.register_buffer("range_high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "observe" or (self.mode == "follow" and self.training):
            self._see(x.detach())
        return x if self.mode == "observe" else self.round(x)

    def _see(self, x: Tensor) -> None:
        # Zero is always among the steps: padding and silence must stay exact.
        low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
        if self.mode == "observe":
            self.range_low.copy_(torch.minimum(self.range_low, low))
            self.range_high.copy_(torch.maximum(self.range_high, high))
        else:
            # The first batch sets the range; the others move it.
            unseen = self.range_low == self.range_high
            moved = torch.where(unseen, 1.0, 1.0 - RANGE_MEMORY)
            self.range_low.lerp_(low, moved)
            self.range_high.lerp_(high, moved)

    def round(self, x: Tensor) -> Tensor:
        """On the steps, or cut off at the ends; the gradient is cut off there too."""
        scale = ((self.range_high - self.range_low) / ACTIVATION_STEPS).clamp(min=1e-12)
        zero = torch.round(-self.range_low / scale).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, ACTIVATION_STEPS)

    def of_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """As a forward pre-hook: the first argument is rounded."""
        return (self(inputs[0]), *inputs[1:])

    def of_output(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        """As a forward hook: the output, or the first of them, is rounded."""
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)


class RoundedConv2d(nn.Conv2d):
    """A convolution whose input and weights are rounded; its weights keep their names."""

    input_range: Range

    @classmethod
    def like(cls, conv: nn.Conv2d) -> RoundedConv2d:
        """With the parameters of another, shared."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        made.weight, made.bias = conv.weight, conv.bias
        made.input_range = Range()
        return made

    def forward(self, input: Tensor) -> Tensor:
        if self.input_range.mode == "observe":
            return super().forward(self.input_range(input))
        weight = round_weight(self.weight)
        return self._conv_forward(self.input_range(input), weight, self.bias)


def block_names(student: CryStudent) -> list[str]:
    """The parts that may be quantised or kept in floating point, in order."""
    return [
        "stem",
        *(f"blocks.{i}" for i in range(len(student.blocks))),
        "collapse",
        *(f"temporal.{i}" for i in range(len(student.temporal))),
        "head",
    ]


def fake_quantise(student: CryStudent, keep_float: Collection[str] = ()) -> CryStudent:
    """Prepare a student, in place, to be rounded everywhere but in the blocks named.

    Its ranges are to be observed first: `set_mode`. Weights and their names stay what they were;
    `plain_student` leaves the ranges out.
    """
    for name in block_names(student):
        if name in keep_float:
            continue
        part = student.get_submodule(name)
        if isinstance(part, nn.Conv2d):
            student.head = RoundedConv2d.like(student.head)
            student.head.register_forward_hook(_add_range(student.head, "output").of_output)
            continue
        _replace_convolutions(part)
        if isinstance(part, Block | TemporalBlock):
            _round_residual(part)
    return student.train(student.training)


def _replace_convolutions(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, RoundedConv2d.like(child))
        else:
            _replace_convolutions(child)


def _round_residual(block: Block | TemporalBlock) -> None:
    """Both sides of the sum: what came in, and what the last convolution made of it."""
    if not getattr(block, "residual", True):
        return
    block.register_forward_pre_hook(_add_range(block, "input").of_input)
    last = block.temporal if block.pointwise is None else block.pointwise
    last.register_forward_hook(_add_range(block, "sum").of_output)


def _add_range(module: nn.Module, name: str) -> Range:
    made = Range()
    module.add_module(f"{name}_range", made)
    return made


def ranges(student: nn.Module) -> Iterator[Range]:
    """All ranges of a prepared student."""
    return (module for module in student.modules() if isinstance(module, Range))


def set_mode(student: nn.Module, mode: Mode) -> None:
    """Of every range: see `Range`."""
    for found in ranges(student):
        found.mode = mode


def without_ranges(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights alone, as a student that was never prepared names them."""
    return {name: tensor for name, tensor in state.items() if RANGE_MARK not in f".{name}"}


def plain_student(student: CryStudent) -> CryStudent:
    """An ordinary student, in evaluation mode, with the weights of a prepared one."""
    plain = CryStudent(student.config)
    plain.load_state_dict(without_ranges(student.state_dict()))
    return plain.eval()
