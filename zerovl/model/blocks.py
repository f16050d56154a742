"""Where a tower's blocks are, and how far from its top each of its parameters stands.

Towers differ in names, not in how they are built: a stem (patches, embeddings), lists of blocks, and what is
behind them (a norm). The order of registration is the order of the forward pass in all towers of timm and
transformers that have such lists, so it tells what stands before, between and behind.
"""

from __future__ import annotations

import re
from itertools import takewhile

from torch import nn

_LISTS = re.compile(r"(blocks|stages|layers?\d*)$")  # how timm and transformers name lists of blocks


def blocks(tower: nn.Module) -> list[nn.Module]:
    """Blocks in the order of the forward pass, of innermost lists of them; empty where a tower has no such list."""
    named = {
        name: module
        for name, module in tower.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and _LISTS.search(name)
    }
    innermost = [module for name, module in named.items() if not any(other.startswith(f"{name}.") for other in named)]
    found = [block for module in innermost for block in module]
    return [block for block in found if not isinstance(block, nn.ModuleList) and any(True for _ in block.parameters())]


def layers(tower: nn.Module) -> dict[str, int]:
    """Layer of each parameter by name: 0 the stem, 1 to n the blocks, n + 1 what is behind them.

    What stands between two blocks (a stage's downsampling) goes with the second.
    """
    places = {id(parameter): index for index, block in enumerate(blocks(tower)) for parameter in block.parameters()}
    begun, found = 0, {}
    for name, parameter in tower.named_parameters():
        begun = max(begun, places.get(id(parameter), -1) + 1)
        behind = begun + 1 if begun else 0
        found[name] = places.get(id(parameter), behind - 1) + 1
    return found


def first_modules(tower: nn.Module, count: int) -> list[nn.Module]:
    """Modules of the stem and of the first `count` blocks (from 1); modules that hold later blocks are left out."""
    last = blocks(tower)[count - 1]
    before = takewhile(lambda module: module is not last, tower.modules())
    return [module for module in before if not _holds(module, last)] + list(last.modules())


def _holds(module: nn.Module, inner: nn.Module) -> bool:
    return any(other is inner for other in module.modules())
