"""States of single images add up to that of the data set, whatever the metric."""

import numpy as np
import pytest
import torch

from depthseg.metrics import (
    CalibrationError,
    CategoryScores,
    ConfusionMatrix,
    DepthErrors,
    FlowErrors,
    InpaintingErrors,
    Meter,
)
from depthseg.metrics.boundaries import BoundaryAlignment, BoundaryIou
from depthseg.metrics.groups import IouByDepth, RecallBySize

RNG = np.random.default_rng(0)


def ids():
    return RNG.integers(0, 3, (6, 8))


def metres():
    return RNG.uniform(1, 30, (6, 8))


def tensor(*shape):
    return torch.from_numpy(RNG.random(shape))


METERS = {
    "confusion": (ConfusionMatrix(3), lambda: (ids(), ids())),
    "depth": (DepthErrors(), lambda: (metres(), metres())),
    "depth unknown": (DepthErrors(), lambda: (metres(), None if RNG.random() < 0.5 else metres())),
    "flow": (FlowErrors(), lambda: (tensor(2, 6, 8), tensor(2, 6, 8))),
    "inpainting": (InpaintingErrors(), lambda: (tensor(3, 6, 8), tensor(3, 6, 8), tensor(6, 8) > 0.5)),
    "categories": (CategoryScores(3), lambda: tuple(torch.from_numpy(RNG.integers(0, 3, 2)))),
    "depth ranges": (IouByDepth(3), lambda: (ids(), ids(), metres())),
    "object sizes": (RecallBySize(3), lambda: (ids(), ids())),
    "boundaries": (BoundaryIou(3), lambda: (ids(), ids(), metres())),
    "calibration": (CalibrationError(), lambda: (ids(), ids(), RNG.random((6, 8)))),
    "heat": (BoundaryAlignment(1), lambda: (metres(), np.repeat(ids()[:, :1], 8, 1))),
}


def test_every_meter_is_tried():
    def kinds(kind):
        return {kind} | {inner for below in kind.__subclasses__() for inner in kinds(below)}

    assert {type(meter) for meter, _ in METERS.values()} >= {
        kind for kind in kinds(Meter) if not kind.__subclasses__() and kind.__module__.startswith("depthseg")
    }


@pytest.mark.parametrize(("meter", "draw"), METERS.values(), ids=METERS)
def test_states_of_images_add_up(meter, draw):
    images = [draw() for _ in range(5)]
    alone = [meter.state_of(*image) for image in images]
    assert not meter.state.any()  # it stays as it is
    for image in images:
        meter.update(*image)
    assert torch.equal(sum(alone), meter.state) and meter.compute() is not None
    before = meter.state.clone()
    assert torch.equal(meter.state_of(*images[0]), alone[0]) and torch.equal(meter.state, before)
