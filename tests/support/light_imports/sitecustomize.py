"""Python starts with this where its folder is on PYTHONPATH: torch's compiler, which no flow's test uses, stays unread.

torch, torchvision and AdamW import torch's compiler and sympy with it, to find out that nothing is compiled: half of
the CPU time that a short training takes. Here stand the few names of both that are then used. A test that compiles, or
shards a model, must not run with it.
"""

import sys
import types
from importlib.machinery import ModuleSpec


def _module(name: str, **names: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(names)
    sys.modules[name] = module
    return module


def _disable(function=None, recursive=True, **_):  # type: ignore[no-untyped-def]
    return function if function is not None else _disable


class _Placeholder:
    """Is there to be imported, and an instance of nothing."""


def _placeholder(name: str) -> type:
    if name.startswith("__"):  # what modules may lack, and are asked for
        raise AttributeError(name)
    return _Placeholder


_module("torch._dynamo", disable=_disable)
_module("torch._dynamo.utils", is_compile_supported=lambda *_: False)
_shapes = _module("torch.fx.experimental.symbolic_shapes")
_shapes.__getattr__ = _placeholder  # type: ignore[method-assign]
