"""Python starts with this where its folder is on PYTHONPATH: torch's compiler, which no flow's test uses, stays unread.

torch, torchvision and AdamW import torch's compiler, and sympy with it, to find out that nothing is compiled: a third
of the CPU time that a short training takes. Here stand names in their place that do nothing. A test that compiles or
shards a model must not run with it.
"""

import contextlib
import sys
import types
from importlib.machinery import ModuleSpec


class _Nothing:
    """Is whatever it is taken for: a decorator, a function, a block or a class, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *arguments: object, **_: object) -> object:
        return arguments[0] if arguments and callable(arguments[0]) else self

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None: ...


def _module(name: str, missing: object, **names: object) -> None:
    """Put a module in place of a real one; `missing` is what any other name of it means."""

    def other(name: str) -> object:
        if name.startswith("__"):  # what modules may lack, and are asked for
            raise AttributeError(name)
        return missing

    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(names, __getattr__=other)
    sys.modules[name] = module


_module("torch._dynamo", _Nothing())
_module("torch._dynamo._trace_wrapped_higher_order_op", _Nothing, TransformGetItemToIndex=contextlib.nullcontext)
_module("torch._dynamo.utils", _Nothing, is_compile_supported=lambda *_: False)
_module("torch.fx.experimental.symbolic_shapes", _Nothing)
