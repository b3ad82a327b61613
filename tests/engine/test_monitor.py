"""Images of what a photometric objective sees."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch

from depthseg.engine.monitor import ERROR_LIMIT, colourise_error, colourise_monitor, image_of
from depthseg.engine.pictures import colourise_inverse_depth


def test_every_kind_is_painted():
    generator = torch.Generator().manual_seed(0)
    image, disparity = torch.rand(3, 4, 6, generator=generator), torch.rand(2, 3, generator=generator)
    error = torch.rand(4, 6, generator=generator)
    maps = {
        "target": image,
        "warped": image.clone().requires_grad_(),
        "disparity": disparity,
        "error": error,
        "auto_mask": error > 0.5,
    }
    images = colourise_monitor(maps)
    assert list(images) == list(maps)
    for name, painted in images.items():
        assert painted.dtype == np.uint8 and painted.shape == ((2, 3, 3) if name == "disparity" else (4, 6, 3))
    expected = (image * 255).round().permute(1, 2, 0).numpy()
    assert all((images[name] == expected).all() for name in ("target", "warped"))
    np.testing.assert_array_equal(images["disparity"], colourise_inverse_depth(disparity.double().numpy()))
    np.testing.assert_array_equal(images["auto_mask"][..., 1], np.where(error > 0.5, 255, 0))


def test_error_has_a_fixed_scale():
    image = colourise_error(np.array([[0.0, ERROR_LIMIT / 2, ERROR_LIMIT, 1.0, np.nan, np.inf]]))
    ends = [list(matplotlib.colormaps["inferno"](share, bytes=True)[:3]) for share in (0.0, 0.5, 1.0)]
    assert image[0].tolist() == [ends[0], ends[1], ends[2], ends[2], ends[0], ends[2]]
    brightness = colourise_error(np.linspace(0, ERROR_LIMIT, 20)[None]).sum(-1)[0]
    assert brightness[0] < 10 and (np.diff(brightness.astype(int)) > 0).all()


def test_numbers_out_of_range_do_not_wrap_around():
    image = image_of(torch.tensor([-0.1, 1.2, float("nan")]).view(1, 1, 3).expand(3, 1, 3))
    assert image[0, :, 0].tolist() == [0, 255, 0]
