"""Which blocks int8 leaves in floating point: a recipe of a few lines.

    # quantise.toml
    keep_float = ["stem", "head"]

Block names are those of the student: stem, blocks.0 ..., collapse, temporal.0 ..., head.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import onnx

from crykit.errors import InputError, UsageError
from crykit.nn.fake_quant import block_names
from crykit.nn.student import CryStudent


class _Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keep_float: tuple[str, ...] = ()


def read_quantise_recipe(path: Path, student: CryStudent) -> tuple[str, ...]:
    """The blocks that a recipe leaves in floating point.

    Raises:
        InputError: no such file, or no TOML.
        UsageError: an unknown key, a block that the student does not have, or all of its blocks.
    """
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=_Recipe)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}; expected keep_float = [BLOCK, ...]") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no TOML ({error})") from None
    known = block_names(student)
    wrong = [name for name in recipe.keep_float if name not in known]
    if wrong:
        raise UsageError(
            f"{path}: no block is called {', '.join(wrong)}; this model has {', '.join(known)}"
        )
    if set(recipe.keep_float) == set(known):
        raise UsageError(f"{path}: nothing would be left for int8; ask for --precision fp32")
    return recipe.keep_float


def block_of(name: str, known: Collection[str]) -> str | None:
    """The block that a parameter or module belongs to: "blocks.1.temporal.conv" to "blocks.1"."""
    return next((block for block in known if name == block or name.startswith(f"{block}.")), None)


def onnx_nodes_of(model: onnx.ModelProto, keep_float: Collection[str]) -> list[str]:
    """Names of the nodes of an ONNX network that make up these blocks.

    A block begins with the concatenation before its first convolution, and lasts until the next.
    """
    graph = model.graph
    owners: list[str | None] = [None] * len(graph.node)
    following = None
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type == "Conv":
            following = block_of(node.input[1], keep_float)
        owners[index] = following
    current = None
    found: list[str] = []
    for node, ahead in zip(graph.node, owners, strict=True):
        if node.op_type in ("Concat", "Conv"):
            current = ahead
        if current is not None:
            found.append(node.name)
    return found


def pt2e_filter(keep_float: Collection[str]) -> Callable[[Any], bool]:
    """Whether XNNPACK's quantiser may take a node, by the module that the node came from.

    Its own `set_module_name` would quantise almost nothing, and not say so.
    """

    def may_take(node: Any) -> bool:
        stack = node.meta.get("nn_module_stack") or {}
        return not any(block_of(path, keep_float) for path, _ in stack.values())

    return may_take
