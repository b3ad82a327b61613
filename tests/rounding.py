"""How far apart two results may be that differ in their order of summation alone.

Kernels sum in an order of their own: it depends on the processor, the number of threads, the memory format, and on
where a tensor is in memory. A bound for that has to grow with the numbers themselves, as their rounding does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch

SHARE = 1e-5
"""Share of the largest value by which two orders of summation may differ in float32: 84 units in its last place.

Rounding is random, so a sum of n terms is off by about sqrt(n) / 2 units of its largest partial sum. The networks of
the tests sum up to 1000 terms, 16 units, and normalisation keeps the error of one layer from growing in the next; five
times as much leaves room for processors that nobody has tried. What goes wrong otherwise (another weight, statistic,
padding, precision or line of code) moves 1e-3 of the largest value or more.
"""

GRADIENT_SHARE = 1e-4
"""The same for gradients, and for changes of weights in a few steps of SGD: a share of the largest of the network.

The backward pass divides by the standard deviations of the forward pass, which small maps make small, and the error of
one step goes into the next. A sample that is left out or counted twice, a wrong divisor or another learning rate moves
1e-2 and more.
"""

Model = TypeVar("Model", bound=torch.nn.Module)


def in_float64(model: Model) -> Model:
    """A copy in float64, for comparisons of what float32 would round beyond `SHARE`.

    Where a network divides by small numbers, takes their logarithm or has a ReLU whose input is nearly zero, float32
    blows its rounding up to the size of a fault. That of float64 is 10^9 times smaller, and stays below.
    """
    return copy.deepcopy(model).double()


def rounding_bound(values: Any, share: float = SHARE) -> float:
    """Largest difference that another order of summation explains, in the unit of the values; 0 for whole numbers."""
    values = torch.as_tensor(values)
    return share * values.abs().max().item() if values.dtype.is_floating_point else 0.0


def assert_same_up_to_rounding(found: Any, expected: Any, what: str = "") -> None:
    """Two tensors or arrays of one shape and dtype are equal but for the order of summation, and finite.

    Args:
        found: What is tested.
        expected: What it should be.
        what: What it is, for the message.
    """
    found, expected = torch.as_tensor(found).detach(), torch.as_tensor(expected).detach()
    bound = rounding_bound(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=bound, msg=lambda text: f"{what}: {text}")


def assert_same_gradients(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Gradients, or changes of weights, by name are equal but for the order of summation."""
    assert found.keys() == expected.keys()
    bound = max(rounding_bound(gradient, GRADIENT_SHARE) for gradient in expected.values())
    assert bound > 0, "Gradients that are zero everywhere would prove nothing."
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=bound, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_same_training(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> None:
    """Weights and statistics after a few steps of SGD from `start` are equal but for the order of summation."""
    assert found.keys() == expected.keys() == start.keys()
    buffers = {name for name in expected if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    for name in buffers:
        assert_same_up_to_rounding(found[name], expected[name], name)
    assert_same_gradients(
        *({name: state[name] - start[name] for name in state if name not in buffers} for state in (found, expected))
    )


def assert_same_ids(ids: Any, scores: Any) -> None:
    """Ids `(H, W)` are those of the highest scores `(K, H, W)`, but where the two best are equal up to rounding.

    Those pixels are few, which is checked as well: scores that are level everywhere would prove nothing.
    """
    scores = torch.as_tensor(scores)
    best, second = scores.topk(2, dim=0).values
    clear = (best - second > 2 * rounding_bound(scores)).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(np.asarray(ids)[clear], scores.argmax(0).numpy()[clear])
