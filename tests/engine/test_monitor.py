"""Pictures of what a photometric objective sees."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from depthseg.engine.monitor import ERROR_LIMIT, colourise_error, colourise_monitor, image_of
from depthseg.engine.pictures import colourise_inverse_depth


def test_every_kind_is_painted():
    generator = torch.Generator().manual_seed(0)
    image, disparity = torch.rand(1, 3, 4, 6, generator=generator), torch.rand(1, 1, 2, 3, generator=generator)
    error = torch.rand(1, 4, 6, generator=generator)
    maps = {
        "target": image[0],
        "source/-1": image,
        "warped/1": image.requires_grad_(),
        "disparity": disparity,
        "error": error,
        "auto_mask": error > 0.5,
    }
    pictures = colourise_monitor(maps)
    assert list(pictures) == list(maps)
    for name, picture in pictures.items():
        assert picture.dtype == np.uint8 and picture.shape == ((2, 3, 3) if name == "disparity" else (4, 6, 3))
    expected = (image[0].detach() * 255).round().permute(1, 2, 0).numpy()
    assert all((pictures[name] == expected).all() for name in ("target", "source/-1", "warped/1"))
    np.testing.assert_array_equal(pictures["disparity"], colourise_inverse_depth(disparity[0, 0].double().numpy()))
    np.testing.assert_array_equal(pictures["auto_mask"][..., 1], np.where(error[0] > 0.5, 255, 0))


def test_error_has_a_fixed_scale():
    picture = colourise_error(np.array([[0.0, ERROR_LIMIT / 2, ERROR_LIMIT, 1.0, np.nan, np.inf]]))
    ends = [list(matplotlib.colormaps["inferno"](share, bytes=True)[:3]) for share in (0.0, 0.5, 1.0)]
    assert picture[0].tolist() == [ends[0], ends[1], ends[2], ends[2], ends[0], ends[2]]
    brightness = colourise_error(np.linspace(0, ERROR_LIMIT, 20)[None]).sum(-1)[0]
    assert brightness[0] < 10 and (np.diff(brightness.astype(int)) > 0).all()


def test_numbers_out_of_range_do_not_wrap_around():
    picture = image_of(torch.tensor([-0.1, 1.2, float("nan")]).view(1, 1, 3).expand(3, 1, 3))
    assert picture[0, :, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("depth", (4, 6), "no image of kind 'depth'; choose from target"),
        ("error", (2, 4, 6), r"'error' has shape \(2, 4, 6\); expected \(H, W\)"),
        ("warped/1", (1, 4, 6), r"'warped/1' has shape \(1, 4, 6\); expected \(3, H, W\)"),
        ("target", (2, 3, 4, 6), r"expected \(3, H, W\) of one image"),
    ],
)
def test_what_cannot_be_painted_is_named(name, shape, words):
    with pytest.raises(ValueError, match=words):
        colourise_monitor({name: torch.zeros(shape)})
