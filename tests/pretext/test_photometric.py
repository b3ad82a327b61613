"""The photometric loss against a transcription of the formulae, brute force and numbers worked out by hand."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from depthseg.bench import photometric as formulae
from depthseg.pretext.photometric import (
    PhotometricLoss,
    TargetStatistics,
    edge_aware_smoothness,
    photometric_error,
    sum_windows,
)

SIZES = [(5, 7), (2, 2), (3, 2), (1, 6), (6, 1), (1, 1)]


def random_images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mirrored(index, size):
    """Index into an axis whose ends are mirrors; an axis of one pixel repeats it."""
    if size == 1:
        return 0
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


def brute_force_error(x, y, ssim_weight=0.85):
    """The definition, pixel by pixel, on arrays `(C, H, W)`; window statistics from centred values."""
    channels, height, width = x.shape
    error = np.zeros((height, width))
    for row, column, channel in np.ndindex(height, width, channels):
        rows = [mirrored(row + step, height) for step in (-1, 0, 1)]
        columns = [mirrored(column + step, width) for step in (-1, 0, 1)]
        a, b = x[channel][np.ix_(rows, columns)], y[channel][np.ix_(rows, columns)]
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        ssim = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
        ssim /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
        difference = abs(x[channel, row, column] - y[channel, row, column])
        error[row, column] += (ssim_weight * (1 - ssim) / 2 + (1 - ssim_weight) * difference) / channels
    return error


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ssim_weight", [0.85, 0.0, 1.0])
def test_error_is_the_definition(size, ssim_weight):
    x, y = random_images(2, 3, *size), random_images(2, 3, *size, seed=1)
    expected = np.stack([brute_force_error(a.numpy(), b.numpy(), ssim_weight) for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(photometric_error(x, y, ssim_weight), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_error_has_the_gradient_of_finite_differences(size):
    x, y = random_images(2, 2, *size).requires_grad_(), random_images(2, 2, *size, seed=1)
    assert gradcheck(lambda x: photometric_error(x, y), x)


@pytest.mark.parametrize("size", SIZES)
def test_transposed_sums_are_the_transpose(size):
    x, y = random_images(1, *size), random_images(1, *size, seed=1)
    assert (sum_windows(x) * y).sum() == pytest.approx((x * sum_windows(y, transposed=True)).sum().item(), rel=1e-12)


def test_error_and_gradient_are_those_of_the_transcription():
    x, y = random_images(2, 3, 24, 40).requires_grad_(), random_images(2, 3, 24, 40, seed=1)
    upstream = random_images(2, 24, 40, seed=2)
    ours, plain = photometric_error(x, TargetStatistics.of(y)), formulae.transcribed_error(x, y)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(error, x, upstream)[0] for error in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_single_precision_stays_near_double():
    x, y = random_images(2, 3, 24, 40), random_images(2, 3, 24, 40, seed=1)
    exact, single = photometric_error(x, y), photometric_error(x.float(), y.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-5)
    half = [image.bfloat16() for image in (x, y)]
    rounded = photometric_error(*(image.double() for image in half))
    torch.testing.assert_close(photometric_error(*half).double(), rounded, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        photometric_error(half[0], y.float()).double(), photometric_error(half[0], y), rtol=0, atol=1e-5
    )


def test_bright_images_of_little_contrast_keep_their_digits():
    # Variances of 1e-5 beside squares of 0.8: constants added in the wrong order shift every error by 1e-5.
    x, y = (0.9 + 0.01 * random_images(1, 3, 48, 160, seed=seed, dtype=torch.float32) for seed in (0, 1))

    def error_and_gradient(dtype):
        prediction = x.to(dtype).requires_grad_()
        error = photometric_error(prediction, y.to(dtype))
        (gradient,) = torch.autograd.grad(error.sum(), prediction)
        return error.detach().double(), gradient.double()

    (error, gradient), (exact, exact_gradient) = error_and_gradient(torch.float32), error_and_gradient(torch.float64)
    assert abs((error - exact).mean()) < 2e-6
    assert (gradient - exact_gradient).norm() < 2e-4 * exact_gradient.norm()


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.2, 0.7), (0.0, 1.0), (0.0, 0.0)])
def test_constant_images(a, b):
    # Without variance SSIM is its first factor; by hand, with 0.01**2 = 1e-4.
    ssim = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    x, y = (torch.full((1, 3, 4, 5), value, dtype=torch.float64) for value in (a, b))
    x.requires_grad_()
    error = photometric_error(x, y)
    torch.testing.assert_close(error, torch.full_like(error, 0.85 * (1 - ssim) / 2 + 0.15 * abs(a - b)))
    (gradient,) = torch.autograd.grad(error.sum(), x)
    # All pixels rising together change the error by its derivative by `a`, 20 pixels over.
    slope = (2 * b * (a * a + b * b + 1e-4) - 2 * a * (2 * a * b + 1e-4)) / (a * a + b * b + 1e-4) ** 2
    assert gradient.sum().item() == pytest.approx(20 * (-0.85 * slope / 2 + 0.15 * np.sign(a - b)), abs=1e-10)
    if a == b:
        assert gradient.abs().max() < 1e-12


def test_target_gets_no_gradient_and_says_so():
    x, y = random_images(1, 3, 4, 4), random_images(1, 3, 4, 4).requires_grad_()
    with pytest.raises(ValueError, match="swap it and prediction"):
        photometric_error(x, y)


def test_loss_and_gradient_are_those_of_the_transcription():
    inputs = formulae.make_inputs(2, 24, 40, dtype=torch.float64)
    ours, plain = formulae.fast_loss(inputs), formulae.transcribed_loss(inputs)
    assert ours.item() == pytest.approx(plain.item(), abs=1e-12)
    for a, b in zip(*(torch.autograd.grad(loss, inputs.leaves) for loss in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
        assert a.any()


def test_loss_in_single_precision_equals_the_transcription():
    inputs = formulae.make_inputs(2, 48, 80)
    assert formulae.fast_loss(inputs).item() == pytest.approx(formulae.transcribed_loss(inputs).item(), abs=1e-6)


def test_loss_passes_gradcheck():
    target, source = random_images(1, 2, 4, 5), random_images(1, 2, 4, 5, seed=1)
    warped = [random_images(1, 2, 4, 5, seed=2 + s).requires_grad_() for s in range(2)]
    disparities = [random_images(1, 1, 4, 5, seed=4).requires_grad_(), random_images(1, 1, 2, 3).requires_grad_()]
    loss = PhotometricLoss(smoothness_weight=0.1)

    def total(a, b, c, d):
        return loss(target, [source], [[a], [b]], [c, d]).loss

    assert gradcheck(total, (*warped, *disparities))


def levels(*values):
    """Constant grey images `(1, 3, 4, 6)`, so that every pixel's error is known."""
    return [torch.full((1, 3, 4, 6), value, dtype=torch.float64, requires_grad=True) for value in values]


def only_l1(**options):
    return PhotometricLoss(ssim_weight=0.0, smoothness_weight=0.0, **options)


def disparity():
    return torch.ones(1, 1, 4, 6, dtype=torch.float64, requires_grad=True)


def halves(left, right):
    """One image `(1, 3, 4, 6)` whose left and right half differ."""
    image = torch.full((1, 3, 4, 6), left, dtype=torch.float64)
    image[..., 3:] = right
    return image.requires_grad_()


def test_each_pixel_takes_its_best_source():
    # Target 0.5: the left half is explained best by the first source (0.1), the right half by the second (0.2).
    (target,) = levels(0.5)
    first, second = halves(0.6, 0.9), halves(0.1, 0.7)
    output = only_l1(auto_mask=False)(target.detach(), levels(0.0, 1.0), [[first, second]], [disparity()])
    assert output.loss.item() == pytest.approx((0.1 + 0.2) / 2)
    torch.testing.assert_close(output.error[0], halves(0.1, 0.2).detach()[:, 0])
    output.loss.backward()
    # One pixel of 24, three channels; where the other source is better there is none.
    torch.testing.assert_close(first.grad, halves(1 / 72, 0.0).detach())
    torch.testing.assert_close(second.grad, halves(0.0, 1 / 72).detach())


def test_auto_mask_leaves_out_what_does_not_move():
    # Unwarped sources err by 0.3 and, on the right half, by 0.05; the warped one by 0.1 everywhere.
    (target, warped) = levels(0.5, 0.6)
    sources = [*levels(0.8), halves(0.9, 0.45)]
    output = only_l1()(target.detach(), sources, [[warped, levels(0.95)[0]]], [disparity()])
    assert output.loss.item() == pytest.approx((0.1 + 0.05) / 2)
    assert output.auto_mask[0, 0, :, :3].all() and not output.auto_mask[0, 0, :, 3:].any()
    output.loss.backward()
    torch.testing.assert_close(warped.grad, halves(1 / 72, 0.0).detach())
    assert all(source.grad is None for source in sources)


def test_a_still_video_teaches_nothing():
    target = random_images(2, 3, 6, 8)
    warped = target.clone().requires_grad_()
    output = only_l1()(target, [target], [[warped]], [random_images(2, 1, 6, 8)])
    assert output.loss == 0 and not output.auto_mask.any()
    output.loss.backward()
    assert not warped.grad.any()


def test_every_scale_is_divided_by_its_own_count():
    # Errors 0.1 on the left half and 0.3 on the right, 4.8 in all, are divided by 24 and by 48 pixels.
    (target,) = levels(0.5)
    warped = halves(0.6, 0.8)
    arguments = (target.detach(), [target], [[warped], [warped]], [disparity(), disparity()])
    output = only_l1(auto_mask=False)(*arguments, num_valid=torch.tensor([24, 48, 1]))
    assert output.loss.item() == pytest.approx((4.8 / 24 + 4.8 / 48) / 2)


def test_parts_of_a_batch_add_up_to_the_batch():
    target, source = random_images(4, 3, 8, 10), random_images(4, 3, 8, 10, seed=1)
    warped = [[random_images(4, 3, 8, 10, seed=2)], [random_images(4, 3, 8, 10, seed=3)]]
    disparities = [random_images(4, 1, 8, 10), random_images(4, 1, 4, 5)]
    loss = PhotometricLoss(smoothness_weight=0.5)
    whole = loss(target, [source], warped, disparities)
    parts = []
    for part in (slice(0, 1), slice(1, 4)):
        parts.append(
            (
                target[part],
                [source[part]],
                [[image[part] for image in scale] for scale in warped],
                [image[part] for image in disparities],
            )
        )
    total = sum(loss(*part, num_valid=torch.tensor([4 * 80, 4 * 80, 4])).loss for part in parts)
    assert total.item() == pytest.approx(whole.loss.item(), rel=1e-12)


def test_scales_are_averaged_and_smoothness_is_halved():
    (target, good, bad) = levels(0.5, 0.6, 0.9)
    ramp = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).expand(1, 1, 2, 3)
    flat = torch.ones(1, 1, 4, 6, dtype=torch.float64)
    loss = PhotometricLoss(ssim_weight=0.0, smoothness_weight=0.3, auto_mask=False)
    output = loss(target.detach(), [target], [[good], [bad]], [flat, ramp])
    assert output.photometric.item() == pytest.approx((0.1 + 0.4) / 2)
    # Divided by its mean of 2 the ramp climbs 0.5 a pixel; second scale: half of 0.3; mean over two scales.
    assert output.smoothness.item() == pytest.approx(0.5 * 0.15 / 2)
    assert output.loss.item() == pytest.approx(0.25 + 0.0375)


def test_smoothness_by_hand():
    # Mean 2; steps along x 1 and 0 (two rows), along y 0, 1, 1 ... divided by 2; the image has one edge of 0.4.
    disparity = torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64)[None, None]
    image = torch.tensor([[0.1, 0.5], [0.1, 0.5]], dtype=torch.float64).expand(1, 3, 2, 2)
    expected = 0.5 * np.exp(-0.4) + 0.5
    assert edge_aware_smoothness(disparity, image).item() == pytest.approx(expected, rel=1e-6)
    assert edge_aware_smoothness(7 * disparity, image).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_smoothness_of_thin_maps_is_finite(size):
    result = edge_aware_smoothness(random_images(2, 1, *size), random_images(2, 3, 4, 6))
    assert torch.isfinite(result).all()
    assert result.any() == (size != (1, 1))


def test_not_a_number_is_not_hidden_by_the_minimum():
    target, source = random_images(1, 3, 6, 8), random_images(1, 3, 6, 8, seed=1)
    broken = source.clone()
    broken[0, 0, 2, 3] = float("nan")
    for sources, warped in (([source], [broken]), ([broken], [source])):
        assert PhotometricLoss()(target, sources, [warped], [random_images(1, 1, 6, 8)]).loss.isnan()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"disparities": []}, "1 and 0 scales"),
        ({"warped": [], "disparities": []}, "at least one"),
        ({"sources": []}, "at least one source"),
        ({"warped": [[torch.zeros(1, 3, 6, 8)] * 2]}, "one image per source"),
        ({"warped": [[torch.zeros(1, 3, 3, 4)]]}, "equal shapes"),
        ({"disparities": [torch.zeros(1, 6, 8)]}, r"expected \(1, 1, h, w\)"),
        ({"num_valid": torch.tensor([48])}, "contains 1 counts; expected one for each of 1 scales"),
    ],
)
def test_wrong_arguments_are_named(change, words):
    image = torch.zeros(1, 3, 6, 8)
    arguments = {"target": image, "sources": [image], "warped": [[image]], "disparities": [torch.ones(1, 1, 6, 8)]}
    with pytest.raises(ValueError, match=words):
        PhotometricLoss()(**(arguments | change))
