"""Former names of functions, attributes and keyword arguments, which still work, with a DeprecationWarning.

At the end of a module, ``former_names``; in a class, ``renamed_attribute``; before a function, ``renamed_arguments``::

    __getattr__ = former_names(__name__, read_centres="read_centers")

    class Hamiltonian:
        centres = renamed_attribute("centres", "centers")  # attribute, property or method

        @renamed_arguments(centres="centers")
        def __init__(self, *, centers): ...
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from importlib import import_module

PACKAGE = __package__


def former_names(module: str, /, **names: str) -> Callable:
    """Make the ``__getattr__`` of a module, which finds its contents under their former names.

    Parameters
    ----------
    module : str
        ``__name__`` of the module.
    **names : str
        Former name = present name, or module:name where it is in another module of the package.
    """

    def find(name):
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        place, _, present = names[name].rpartition(":")
        place = f"{PACKAGE}.{place}" if place else module
        _warn(f"{module}.{name}", f"{place}.{present}")
        return getattr(import_module(place), present)

    return find


class renamed_attribute:
    """The former name of an attribute, property or method of a class.

    Parameters
    ----------
    former, present : str
        Name of the attribute before and now.
    """

    def __init__(self, former: str, present: str):
        self.former, self.present = former, present

    def __get__(self, instance, owner):
        _warn(f"{owner.__name__}.{self.former}", f"{owner.__name__}.{self.present}")
        return getattr(owner if instance is None else instance, self.present)

    def __set__(self, instance, value):
        _warn(f"{type(instance).__name__}.{self.former}", f"{type(instance).__name__}.{self.present}")
        setattr(instance, self.present, value)


def renamed_arguments(**names: str) -> Callable:
    """Make a decorator for functions whose keyword arguments have other names now.

    Parameters
    ----------
    **names : str
        Former name = present name.

    Raises
    ------
    TypeError
        From the decorated function, where an argument is given under both names.
    """

    def decorate(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            for former in names.keys() & kwargs.keys():
                present = names[former]
                if present in kwargs:
                    raise TypeError(f"{function.__qualname__}: got '{former}' and '{present}'; give '{present}' alone")
                _warn(f"{function.__qualname__}({former}=)", f"{present}=")
                kwargs[present] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate


def formerly_positional(*names: str) -> Callable:
    """Make a decorator for functions whose last arguments have become keyword-only.

    Parameters
    ----------
    *names : str
        These arguments, in the order in which they could be given by position.
    """

    def decorate(function):
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        first = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)

        @functools.wraps(function)
        def call(*args, **kwargs):
            if first < len(args) <= first + len(names):
                by_name = dict(zip(names, args[first:]))
                text = f"{function.__qualname__}: pass {', '.join(by_name)} by name; places will go"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                return function(*args[:first], **by_name, **kwargs)
            return function(*args, **kwargs)

        return call

    return decorate


def _warn(former, present):
    warnings.warn(f"{former} is now {present}; the former name will go", DeprecationWarning, stacklevel=3)
