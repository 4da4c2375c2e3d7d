"""Tensors that say that they are on a GPU and compute on the CPU, to find what a step would copy to the host or wait for.

``FakeTensorMode`` knows without a GPU which operations mix devices and which need numbers on the host, but it has no
numbers, and a build of PyTorch without CUDA ends the process where it differentiates a fake CUDA tensor.  Here a tensor
has numbers, is differentiated as one of the device "meta", and every operation on it also runs in ``FakeTensorMode`` with
``device="cuda"``.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

import ase_mlelec

CUDA = torch.device("cuda", 0)
PACKAGE = str(Path(ase_mlelec.__file__).parent)
NEEDS_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
# a conjugate that PyTorch only notes is lost here, where it does not look for the note
NOT_LAZY = {torch.ops.aten._conj.default: torch.ops.aten.conj_physical.default}


class OnCuda(torch.Tensor):
    """A tensor of the "GPU"; ``inner`` has its numbers."""

    @staticmethod
    def __new__(cls, inner):
        options = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device="meta", **options)

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"OnCuda({self.inner})"

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "device"}
        # PyTorch makes zeros for missing gradients on the device that it sees
        args = tree_map_only(torch.Tensor, lambda each: zeros_like(each) if is_number_less(each) else each, args)
        Gpu.present.check(function, args, kwargs)
        inner = tree_map_only(OnCuda, lambda each: each.inner, (args, kwargs))
        function = NOT_LAZY.get(function, function)
        found = function(*inner[0], **inner[1])
        own = {
            id(each.inner): each for each in tree_leaves_of((args, kwargs))
        }  # operations in place return their argument
        return tree_map_only(torch.Tensor, lambda each: own[id(each)] if id(each) in own else OnCuda(each), found)


def with_tensors(args):
    """Arguments of ``torch.where`` with tensors for numbers, of which PyTorch would make tensors without numbers."""
    kind = torch.float64 if any(isinstance(each, torch.Tensor) for each in args[1:]) else None
    return tuple(
        each if isinstance(each, torch.Tensor) else torch.tensor(each, dtype=kind if type(each) is float else None)
        for each in args
    )


def is_number_less(tensor):
    return not isinstance(tensor, OnCuda) and torch.Tensor.device.__get__(tensor).type == "meta"


def zeros_like(tensor):
    frame = sys._getframe()
    while not frame.f_code.co_filename.endswith("torch/autograd/graph.py"):
        frame = frame.f_back
        assert frame is not None, f"the pretended GPU lost the numbers of a tensor of the shape {tuple(tensor.shape)}"
    return OnCuda(torch.zeros(tensor.shape, dtype=tensor.dtype))


def described(each):
    """Arguments with what is known of a tensor without its numbers in place of it."""
    if isinstance(each, (list, tuple)):
        return tuple(map(described, each))
    if isinstance(each, dict):
        return tuple((name, described(value)) for name, value in each.items())
    if isinstance(each, torch.Tensor):
        return isinstance(each, OnCuda) or each.device, each.shape, each.stride(), each.dtype
    return type(each), each


def tree_leaves_of(tree):
    found = []
    tree_map_only(OnCuda, found.append, tree)
    return found


class Gpu(TorchFunctionMode):
    """Context in which ``device="cuda"`` gives OnCuda; ``waits`` are the places where the host would wait for the GPU."""

    present: "Gpu"
    known = {}  # what operations do, by their arguments without numbers

    def __init__(self):
        super().__init__()
        self.waits, self.fake = [], FakeTensorMode()
        Gpu.present = self

    def check(self, function, args, kwargs):
        """Run an operation on fake CUDA tensors, once for each kind; it raises where devices mix."""
        kind = (function, described(args), described(kwargs))
        if kind not in self.known:
            self.known[kind] = self._needs_numbers(function, args, kwargs)
        if self.known[kind]:
            self.wait(function.overloadpacket.__name__)

    def _needs_numbers(self, function, args, kwargs):
        def fake(each):
            device = CUDA if isinstance(each, OnCuda) else each.device
            return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=device)

        with self.fake:
            try:
                function(*tree_map_only(torch.Tensor, fake, args), **tree_map_only(torch.Tensor, fake, kwargs))
            except NEEDS_NUMBERS:
                return True
            except RuntimeError as error:
                if "not linked with support" not in str(error):  # masks as indices
                    raise
                return True
        return False

    def wait(self, what):
        frame = sys._getframe(1)
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        place = "outside" if frame is None else Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()
        self.waits.append((place, "" if frame is None else frame.f_code.co_name, what))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if name in ("cpu", "numpy", "tolist", "item") or (name == "to" and moves_to_host(tensor, args, kwargs)):
            return self.to_host(function, name, tensor, args, kwargs)
        if name == "__setitem__" and isinstance(tensor, OnCuda) and not isinstance(args[2], torch.Tensor):
            where = tree_map_only(OnCuda, lambda each: each.inner, args[1])
            tensor.inner[where] = args[2]  # PyTorch would make a number of the device "meta", which has none
            return None
        if name == "to" and any(isinstance(each, OnCuda) for each in args[1:]):  # as another tensor
            other = next(each for each in args[1:] if isinstance(each, OnCuda))
            args, kwargs = (tensor,), {"device": CUDA, "dtype": other.dtype}
        if name == "where" and isinstance(tensor, OnCuda) and len(args) == 3:
            args = with_tensors(args)
        if name == "__getitem__" and isinstance(tensor, OnCuda) and isinstance(args[1], list):
            args = (tensor, torch.tensor(args[1]))
        if name == "new_tensor" and isinstance(tensor, OnCuda):
            with torch._C.DisableTorchFunction():
                return OnCuda(tensor.inner.new_tensor(*args[1:], **kwargs))
        given = [*(args[1:] if name == "to" else ()), kwargs.get("device")]
        devices = [each for each in given if isinstance(each, (torch.device, str)) and is_cuda(each)]
        if not devices or name == "_parse_to":
            return function(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if isinstance(tensor, OnCuda) and name == "to":
                left_out = (*devices, None, False, True)  # devices, a dtype that stays, and whether to wait
                rest = [each for each in args[1:] if not any(each is item for item in left_out)]
                left = {key: each for key, each in kwargs.items() if key != "device"}
                return tensor.to(*rest, **left) if rest or left else tensor
            host = torch.device("cpu")
            plain = tree_map(lambda each: host if any(each is device for device in devices) else each, (args, kwargs))
            differentiated = plain[1].pop("requires_grad", False)
            return OnCuda(function(*plain[0], **plain[1])).requires_grad_(differentiated)

    def to_host(self, function, name, tensor, args, kwargs):
        if not isinstance(tensor, OnCuda):
            return function(*args, **kwargs)
        if name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        self.wait(name)
        with torch._C.DisableTorchFunction():
            inner = tensor.detach().inner
            return inner if name in ("cpu", "to") else getattr(inner, name)()


def is_cuda(device):
    try:
        return torch.device(device).type == "cuda"
    except RuntimeError:  # a string that is no device
        return False


def moves_to_host(tensor, args, kwargs):
    given = [each for each in (*args[1:], kwargs.get("device")) if isinstance(each, (torch.device, str))]
    return isinstance(tensor, OnCuda) and any(not is_cuda(each) for each in given)


def inside(mode, run):
    """``run`` with the mode, which PyTorch leaves for functions such as ``torch.autograd.grad``."""

    def inner(*args, **kwargs):
        with mode:
            return run(*args, **kwargs)

    return inner


@contextmanager
def gpu(monkeypatch):
    """A Gpu, and a calculator may be asked for ``device="cuda"``."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with Gpu() as mode:
        monkeypatch.setattr(torch.autograd, "_engine_run_backward", inside(mode, torch.autograd._engine_run_backward))
        yield mode
