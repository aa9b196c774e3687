"""What an exercise's cell says: "right", or in one sentence what is not."""

import numpy as np
import torch

CLOSE = 2e-3  # what is wanted may be written with three digits


def check(function, *cases: tuple[tuple, object], through=None) -> None:
    """Print "right", or one sentence on the first case in which `function` gives something else.

    A case: (arguments, what it should give: a number or numbers). `through`: a function of what it gives,
    where that itself should be of no fixed value. A stub, which returns None, is told where to begin.
    """
    print(_judged(function, cases, through))


def _judged(function, cases, through) -> str:
    ratios = []
    wrong = ""
    for arguments, wanted in cases:
        call = f"{function.__name__}({', '.join(map(_short, arguments))})"
        try:
            found = function(*arguments)
            if found is None:
                return f"{call} gives nothing yet: write your code in place of None, and run the cell"
            if through is not None:
                call = f"{through.__name__}({call})"
                found = through(found)
        except Exception as error:  # whatever a learner's code raises is told in a sentence, too
            return f"not yet: {call} stops with {type(error).__name__}: {error}"
        try:
            got, right = (_numbers(value) for value in (found, wanted))
        except (TypeError, ValueError):
            return f"not yet: {call} gives {found!r:.60}, where a number is wanted"
        if got.shape != right.shape:
            return f"not yet: {call} gives {_shape(got)}, where {_shape(right)} is wanted"
        if not np.allclose(got, right, atol=CLOSE, rtol=CLOSE):
            wrong = wrong or f"not yet: {call} gives {_short(found)}, where {_short(wanted)} is wanted"
        ratios += [g / r for g, r in zip(got.flat, right.flat) if abs(r) > CLOSE]
    return wrong + _pattern(ratios) if wrong else "right"


def _pattern(ratios: list[float]) -> str:
    """What all that was given has in common with what is wanted."""
    if len(ratios) < 2 or not np.ptp(ratios) < CLOSE or min(abs(ratios[0]), abs(ratios[0] - 1)) < CLOSE:
        return ""
    if abs(ratios[0] + 1) < CLOSE:
        return "; all signs are turned round"
    return f"; it is {ratios[0]:.3g} times what is wanted, each time"


def _numbers(value) -> np.ndarray:
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    return np.asarray(value, dtype=np.float64)


def _shape(array: np.ndarray) -> str:
    return f"an array of shape {array.shape}" if array.ndim else "one number"


def _short(value) -> str:
    """A number with four digits, several as a list of the first ones, anything else by its name."""
    try:
        numbers = _numbers(value)
    except (TypeError, ValueError):
        if len(repr(value)) > 40 or " at 0x" in repr(value):  # where it lies is another place each time
            return getattr(value, "__name__", type(value).__name__)
        return repr(value)
    if not numbers.ndim:
        return f"{numbers:.4g}"
    shown = ", ".join(f"{number:.4g}" for number in numbers.flat[:4])
    return f"[{shown}{', …' if numbers.size > 4 else ''}]"
