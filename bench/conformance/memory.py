"""What a router could remember outside of its state_dict, and a digest of each of these places."""

import hashlib
import random
import re
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.routing.contract import Router
from bench.routing.fingerprint import helpers_of, own_modules

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_OF_EVERY_MODULE = frozenset(
    {
        *vars(types.ModuleType("")),
        "__file__",
        "__cached__",
        "__builtins__",
        "__path__",
        "__annotations__",
    }
)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def hidden_state(router: Router) -> dict[str, str]:
    """Digest of each place that the state_dict does not save.

    These are attributes and non-persistent buffers of the router, its submodules and their tensors,
    attributes of its classes, and global variables, default arguments, closures and caches of the
    modules that define those, and of modules beside them.

    Returns:
        Name of the place -> digest of its content.
    """
    found: dict[str, str] = {}
    for prefix, module in router.named_modules():
        where = f"self.{prefix}." if prefix else "self."
        places = {
            name: value for name, value in vars(module).items() if name not in _MODULE_ATTRIBUTES
        }
        places |= {name: module.get_buffer(name) for name in module._non_persistent_buffers_set}  # pyright: ignore[reportPrivateUsage]
        found |= {where + name: digest(value) for name, value in places.items()}
        tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found |= {
            f"{where}{name}.{key}": digest(value)
            for name, tensor in tensors
            for key, value in vars(tensor).items()
        }
    routers = (
        module for module in router.modules() if isinstance(module, Router)
    )  # itself, and what it wraps
    for name in dict.fromkeys(name for module in routers for name in own_modules(type(module))):
        module = sys.modules[name]
        found |= _module_state(module)
        for helper in helpers_of(module):
            found |= {
                f"{helper.__name__}.{place}": state
                for place, state in _module_state(helper).items()
            }
    return found


def _module_state(module: types.ModuleType) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, types.ModuleType) or name in _OF_EVERY_MODULE:
            continue
        home = getattr(value, "__module__", module.__name__)
        if isinstance(value, type):
            if home == module.__name__:
                found |= {
                    f"{name}.{key}": digest(item)
                    for key, item in vars(value).items()
                    if key not in ("__dict__", "__weakref__")
                }
        elif not callable(value) or home == module.__name__:
            found[name] = digest(value)
    return found


def changed_places(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Places whose content is not what it was, new ones included."""
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )


def digest(value: Any) -> str:
    """Digest of a value by content, whatever it is made of; cycles are cut."""
    state = hashlib.sha256()
    _feed(state, value, set())
    return state.hexdigest()


def _feed(state: "hashlib._Hash", value: Any, seen: set[int]) -> None:  # pyright: ignore[reportPrivateUsage]
    state.update(type(value).__qualname__.encode())
    if id(value) in seen:
        return
    if isinstance(value, Tensor | np.ndarray):
        array = (
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
            if isinstance(value, Tensor)
            else value
        )
        state.update(
            str((value.shape, value.dtype)).encode() + np.ascontiguousarray(array).tobytes()
        )
        return
    parts = _parts(value)
    if parts is None:
        state.update(_ADDRESS.sub("", repr(value)).encode())
        return
    seen = seen | {id(value)}
    for part in parts:
        _feed(state, part, seen)


def _parts(value: Any) -> list[Any] | None:
    """What a value is made of; None for a value that its `repr` tells all about."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    if isinstance(value, random.Random):
        return [value.getstate()]
    if isinstance(value, np.random.Generator):
        return [value.bit_generator.state]
    if isinstance(value, nn.Module):
        return [
            value.state_dict(),
            {name: item for name, item in vars(value).items() if name not in _MODULE_ATTRIBUTES},
        ]
    if hasattr(value, "cache_info"):
        return [value.cache_info()]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, value.__defaults__, value.__kwdefaults__, cells, vars(value)]
    if isinstance(value, type | types.ModuleType | types.MethodType):
        return None
    slots = [name for cls in type(value).__mro__ for name in _slots(cls) if hasattr(value, name)]
    if not slots and not hasattr(value, "__dict__"):
        return None
    return [getattr(value, "__dict__", None), [getattr(value, name) for name in slots]]


def _slots(cls: type) -> list[str]:
    """Names of the attributes that a class keeps outside of `__dict__`."""
    names = vars(cls).get("__slots__", ())
    return (
        [names]
        if isinstance(names, str)
        else [name for name in names if name not in ("__dict__", "__weakref__")]
    )
