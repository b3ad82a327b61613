import pytest
import torch

from depthseg.pretext import LearnedCamera, build_pose_network

IMAGES = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def network(name):
    torch.manual_seed(0)
    return build_pose_network(name, {"depth": 18, "width_factor": 0.125}, deepest_channels=8)


def inputs(net):
    return torch.rand(2, 2, 8, 2, 3) if net.reads_maps else IMAGES


@pytest.mark.parametrize("name", ["separate", "shared", "posecnn"])
def test_motion_of_two_images(name):
    net = network(name)
    rotation, translation, seen = net(*inputs(net))
    assert rotation.shape == translation.shape == (2, 3)
    assert seen.shape == (2, net.channels)
    (rotation.sum() + translation.sum() + seen.sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("name", ["separate", "shared", "posecnn"])
def test_the_network_begins_near_standstill_and_sees_the_order(name):
    net = network(name).eval()
    first, second = inputs(net)
    motion = torch.cat(net(first, second)[:2], 1)
    assert 0 < motion.abs().max() < 0.05
    assert not torch.equal(motion, torch.cat(net(second, first)[:2], 1))


def test_numbers_of_parameters_are_those_of_monodepth2():
    # Published for ResNet-18: decoder 1,314,572 with an output for two frames, of which ours has the one that is used.
    net = build_pose_network("separate", {"depth": 18}, 512)
    decoder = [*net.squeeze.parameters(), *net.decoder.parameters()]
    assert sum(parameter.numel() for parameter in decoder) == 1_314_572 - 6 * (256 + 1)


def test_unknown_network():
    with pytest.raises(ValueError, match="'lstm'; choose one of: separate, shared, posecnn"):
        build_pose_network("lstm", {}, 8)


def test_one_camera_begins_as_wide_as_the_image_and_square():
    camera = LearnedCamera(pixel_aspect=2.0)
    found = camera(torch.zeros(3, 7), (10, 21))
    expected = torch.tensor([[21.0, 0.0, 10.0], [0.0, 42.0, 4.5], [0.0, 0.0, 1.0]]).expand(3, 3, 3)
    torch.testing.assert_close(found, expected)
    found[:, 0, 0].sum().backward()
    assert camera.raw_focal.grad.item() > 0


def test_each_image_may_have_a_camera_of_its_own():
    camera = LearnedCamera(channels=2)
    same = camera(torch.randn(2, 2), (10, 20))[:, 0, 0]
    torch.testing.assert_close(same, torch.full((2,), 20.0))
    torch.nn.init.constant_(camera.layer.weight, 1.0)
    focal = camera(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), (10, 20))[:, 0, 0]
    torch.testing.assert_close(focal[0], torch.nn.functional.softplus(torch.tensor(3.5413248)) * 20)
