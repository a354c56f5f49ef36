from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
from small_runs import EACH_OPERATOR, killed_in_epoch, one_of, settings

from fundus_seg import load_model
from fundus_seg.builtins import METHODS
from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.models import build_model
from fundus_seg.training import Method, train
from fundus_seg.training.method import domain_risks, draw_partners
from fundus_seg.training.methods import mixstyle
from fundus_seg.training.methods.fourier import FourierMix, mix_amplitudes
from fundus_seg.training.methods.groupdro import GroupDRO
from fundus_seg.training.methods.mixstyle import MixStyle, mix_styles
from fundus_seg.training.methods.rsc import RSC, challenge
from fundus_seg.training.methods.vrex import VREx
from fundus_seg.training.task import binary_cross_entropy

TINY = {"encoder": "tu-mobilenetv2_035", "image_size": 64, "aspp_channels": 8}
DOMAINS = torch.tensor([0, 0, 1, 1])


def content(run):
    return torch.load(run.checkpoint("last"), weights_only=True)


def assert_same_weights(first, second):
    one, other = content(first)["model"], content(second)["model"]
    assert all(torch.equal(one[key], other[key]) for key in one)


def train_in_two_parts(config, root, out):
    """Killed in the second epoch, and taken up again."""
    with killed_in_epoch(2):
        train(config, root, out)
    return train(config, root, out)


def mean_logits(logits, masks):
    """A loss whose value can be written down."""
    return logits.mean(dim=(0, 2, 3))


def two_risks():
    """Two domains of two cases with the risks (1, 2) and (3, 2) by `mean_logits`."""
    risks = torch.tensor([[0.0, 2.0], [2.0, 2.0], [3.0, 1.0], [3.0, 3.0]])
    return risks[:, :, None, None].expand(4, 2, 2, 2)


def test_partners_are_of_other_domains():
    torch.manual_seed(0)
    drawn = torch.stack([draw_partners(DOMAINS) for _ in range(50)])
    assert (DOMAINS[drawn] != DOMAINS).all()
    assert set(drawn[:, 0].tolist()) == {2, 3}


def test_partners_are_anybody_where_there_is_one_domain():
    torch.manual_seed(0)
    drawn = torch.stack([draw_partners(torch.zeros(3)) for _ in range(50)])
    assert set(drawn[:, 0].tolist()) == {0, 1, 2}


def test_mixed_styles_by_hand():
    """Mean and deviation 2 and 1, 20 and 10: a quarter of the first and three of the second are 15.5 and 7.75."""
    features = torch.tensor([[1.0, 3.0], [10.0, 30.0]]).view(2, 1, 1, 2).requires_grad_()
    mixed = mix_styles(features, torch.tensor([1, 0]), torch.full((2, 1, 1, 1), 0.25))
    expected = torch.tensor([[7.75, 23.25], [6.5 - 3.25, 6.5 + 3.25]])
    assert mixed.detach().view(2, 2) == pytest.approx(expected, rel=1e-5)
    mixed.sum().backward()
    assert features.grad.flatten() == pytest.approx([7.75, 7.75, 0.325, 0.325], rel=1e-5)  # none through the statistics


def test_a_case_that_keeps_nothing_of_its_style_has_its_partner_s():
    features = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5).view(4, 1, 1, 1)
    partners = torch.tensor([2, 3, 1, 0])
    mixed = mix_styles(features, partners, torch.zeros(4, 1, 1, 1))
    for statistic in (torch.mean, torch.std):
        mixed_values, values = statistic(mixed, (2, 3)), statistic(features, (2, 3))
        torch.testing.assert_close(mixed_values, values[partners], atol=1e-4, rtol=1e-4)
    kept = mix_styles(features, partners, torch.ones(4, 1, 1, 1))
    torch.testing.assert_close(kept, features)


def test_mixed_styles_keep_the_precision_of_the_features():
    features = torch.randn(2, 3, 8, 8).bfloat16()
    assert mix_styles(features, torch.tensor([1, 0]), torch.full((2, 1, 1, 1), 0.5)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("encoder", "frozen"),
    [("tu-mobilenetv2_035", False), ("mobilenet_v2", False), ("resnet18", True), ("efficientnet-b0", False)],
)
def test_mixstyle_works_on_the_first_stages_in_training_alone(encoder, frozen):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("conv", **TINY | {"encoder": encoder})
        if frozen:
            network.encoder.freeze()
        keys, images = network.state_dict().keys(), torch.randn(4, 3, 64, 64)
        plain = network.eval()(images)
        method = MixStyle(p=1.0)
        method.attach(network)
        method.batch(images, images, DOMAINS, 0)
        assert torch.equal(network(images), plain)
        assert network.state_dict().keys() == keys
        shapes = []
        hooked = [module for module in network.modules() if module._forward_hooks]
        for module in hooked:
            module.register_forward_hook(lambda *call: shapes.append(call[2].shape[2:]))
        network.aspp.project[-1].p = 0.0
        first, second = (network.train()(images) for _ in range(2))
        assert shapes == 2 * [(16, 16), (8, 8)]
        assert not torch.equal(first, second)  # other partners, other weights


def test_mixstyle_leaves_alone_what_it_does_not_draw():
    network = build_model("conv", **TINY)
    method = MixStyle(p=0.0)
    method.attach(network)
    hooked = [module for module in network.modules() if module._forward_hooks]
    features = torch.randn(2, 3, 4, 4)
    assert all(hook(module, (), features) is features for module in hooked for hook in module._forward_hooks.values())


@pytest.mark.parametrize("encoder", ["mit_b0", "tu-test_vit"])
def test_mixstyle_says_where_an_encoder_hides_its_stages(encoder):
    with pytest.raises(UsageError, match="mixstyle: this encoder has no stages, or hides where they end; choose"):
        MixStyle().attach(build_model("conv", **TINY | {"encoder": encoder}))


def test_mixed_amplitudes_by_hand():
    """Of [[10, 20], [30, 40]] the spectrum is [[100, -20], [-40, 0]], of the other [[16, -16], [0, 0]].

    Half and half the amplitudes are 58, 18, 20, 0; the signs stay, and a quarter of sums and differences goes back.
    """
    images = torch.tensor([[[10.0, 20], [30, 40]], [[0, 8], [0, 8]]])[:, None]
    mixed = mix_amplitudes(images, torch.tensor([1, 0]), torch.tensor([0.5, 0.0]).view(2, 1, 1, 1))
    assert mixed[0, 0].flatten() == pytest.approx([5, 14, 15, 24], abs=1e-4)
    torch.testing.assert_close(mixed[1], images[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_amplitude_is_mixed_and_the_phase_stays(size):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, *size, generator=draw) * 20 + 100  # far from what is clipped
    mixed = mix_amplitudes(images, torch.tensor([1, 0]), torch.full((2, 1, 1, 1), 0.3))
    amplitudes, spectra = torch.fft.fft2(images).abs(), torch.fft.fft2(mixed)
    torch.testing.assert_close(spectra.abs()[0], 0.7 * amplitudes[0] + 0.3 * amplitudes[1], atol=1e-2, rtol=1e-3)
    turned = torch.exp(1j * (spectra.angle() - torch.fft.fft2(images).angle()))
    torch.testing.assert_close(turned.real, torch.ones_like(turned.real), atol=1e-3, rtol=0)


def test_fourier_mix_stays_in_range_and_leaves_masks_and_undrawn_cases():
    torch.manual_seed(0)
    images, masks = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8), torch.zeros(4, 2, 16, 16)
    mixed, same = FourierMix(p=1.0).batch(images, masks, DOMAINS, 0)
    assert same is masks
    assert mixed.min() >= 0 and mixed.max() <= 255
    assert (mixed - images).abs().amax(dim=(1, 2, 3)).min() > 1
    undrawn, _ = FourierMix(p=0.0).batch(images, masks, DOMAINS, 0)
    torch.testing.assert_close(undrawn, images.float(), atol=1e-3, rtol=0)


def test_vrex_by_hand():
    """Risks (1, 2) and (3, 2): mean (2, 2), variance (1, 0)."""
    logits = two_risks()
    method = VREx(beta=10.0, warm_up=5)
    risks = domain_risks(mean_logits, logits, logits, DOMAINS)
    assert risks.tolist() == [[1, 2], [3, 2]]
    assert method.loss(mean_logits, logits, logits, DOMAINS, 4).tolist() == [3, 2]
    assert method.loss(mean_logits, logits, logits, DOMAINS, 5).tolist() == [12, 2]


def test_no_method_is_the_loss_itself_and_vrex_of_one_domain_is_too():
    logits, masks = two_risks(), torch.ones(4, 2, 2, 2)
    plain = binary_cross_entropy(logits, masks)
    assert torch.equal(Method().loss(binary_cross_entropy, logits, masks, DOMAINS, 0), plain)
    alone = VREx().loss(binary_cross_entropy, logits, masks, torch.zeros(4), 900)
    torch.testing.assert_close(alone, plain)


def test_groupdro_by_hand():
    """Risks (1, 2) and (3, 2), means 1.5 and 2.5: with eta ln 3, q becomes (1, 3) / 4, then (1, 9) / 10."""
    logits = two_risks().double()
    method = GroupDRO(eta=math.log(3))
    first, second = (method.loss(mean_logits, logits, logits, DOMAINS, step) for step in range(2))
    assert first.tolist() == pytest.approx([0.25 * 1 + 0.75 * 3, 2], abs=1e-12)
    assert second.tolist() == pytest.approx([0.1 * 1 + 0.9 * 3, 2], abs=1e-12)


def test_groupdro_weighs_gradients_and_not_the_weights_themselves():
    logits = two_risks().double().clone().requires_grad_()
    GroupDRO(eta=math.log(3)).loss(mean_logits, logits, logits, DOMAINS, 0).sum().backward()
    weights = torch.tensor([0.25, 0.25, 0.75, 0.75]) / (2 * 4)  # 1 / (cases x pixels) of each domain
    torch.testing.assert_close(logits.grad, weights.double().view(4, 1, 1, 1).expand_as(logits))


def test_groupdro_goes_on_from_its_state():
    logits = two_risks()
    whole, begun, again = GroupDRO(eta=1.0), GroupDRO(eta=1.0), GroupDRO(eta=1.0)
    losses = [whole.loss(mean_logits, logits, logits, DOMAINS, step) for step in range(3)]
    begun.loss(mean_logits, logits, logits, DOMAINS, 0)
    again.restore(begun.state())
    assert torch.equal(again.loss(mean_logits, logits, logits, DOMAINS, 1), losses[1])
    assert not torch.equal(begun.loss(mean_logits, logits * 2, logits, DOMAINS, 1), losses[1])


WEIGHTS = torch.tensor([[1.0, -2.0, 3.0], [2.0, 1.0, -1.0]], dtype=torch.float64)


def head(features):
    """Two logits a position from three channels."""
    return torch.einsum("sc,bchw->bshw", WEIGHTS, features)


def test_challenged_channels_by_hand():
    """All is disc, nothing cup: the gradient of sum (2 y - 1) a is the first row of weights minus the second."""
    features = torch.ones(2, 3, 1, 2, dtype=torch.float64)
    masks = torch.tensor([1, 0]).view(1, 2, 1, 1).expand(2, 2, 1, 2)
    kept = challenge(head, features, masks, fraction=1 / 3, cases=1.0, spatial=False)
    assert kept.shape == (2, 3, 1, 1)  # gradients -1, -3, 4
    assert kept.flatten(1).tolist() == [[1, 1, 0], [1, 1, 0]]
    kept = challenge(head, features, masks, fraction=2 / 3, cases=1.0, spatial=False)
    assert kept.flatten(1).tolist() == [[0, 1, 0], [0, 1, 0]]


def test_challenged_positions_by_hand():
    """Means over channels are 2/3 for the disc and 2/3 for the cup, so twice that where both are there."""
    features = torch.ones(1, 3, 1, 3, dtype=torch.float64)
    masks = torch.tensor([[[0, 1, 1]], [[0, 0, 1]]])[None]
    kept = challenge(head, features, masks, fraction=1 / 3, cases=1.0, spatial=True)
    assert kept.shape == (1, 1, 1, 3)
    assert kept.flatten().tolist() == [1, 1, 0]


def test_only_the_cases_are_challenged_whose_truth_loses_most():
    """Muting the third channel takes 3 and 1 from logits of 2 and 2: more where the features are larger."""
    features = torch.ones(3, 3, 1, 1, dtype=torch.float64) * torch.tensor([0.0, 1.0, 0.1]).view(3, 1, 1, 1)
    masks = torch.tensor([1, 0]).view(1, 2, 1, 1).expand(3, 2, 1, 1)
    kept = [challenge(head, features, masks, fraction=1 / 3, cases=n / 3, spatial=False) for n in range(4)]
    assert [(each == 0).any(dim=1).flatten().tolist() for each in kept] == [
        [False, False, False],
        [False, True, False],
        [False, True, True],
        [True, True, True],
    ]


@pytest.mark.parametrize("op", EACH_OPERATOR)
@pytest.mark.parametrize("dtype", one_of(torch.float32, torch.bfloat16))
def test_rsc_mutes_deep_features_in_training_alone(op, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(op, **TINY)
    method = RSC()
    method.attach(network)
    seen = []
    network.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    images, masks = torch.randn(6, 3, 64, 64), torch.randint(2, (6, 2, 64, 64))
    statistics = [name for name in network.state_dict() if "running" in name and name.startswith("decoder")]
    method.batch(images, masks, torch.arange(6), 0)
    plain = network.eval()(images)
    assert torch.equal(network(images), plain)
    before = {name: network.state_dict()[name].clone() for name in statistics}
    for step in range(2):
        method.batch(images, masks, torch.arange(6), step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = network.train()(images)
        deep = seen[-1]
        assert deep.dtype == dtype
        muted = (deep == 0).all(dim=1).flatten(1) if step == 0 else (deep == 0).all(dim=(2, 3))
        assert muted.sum(dim=1).topk(2).values.min() >= round(muted.shape[1] / 3)  # ReLU leaves more zeros
        network.zero_grad()
        logits.float().mean().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in network.decoder.parameters())
    assert network.decoder.training
    assert not any(torch.equal(before[name], network.state_dict()[name]) for name in statistics)
    assert network.decoder.fuse[1].num_batches_tracked == 2  # the passes that find the gradients leave no trace


@pytest.mark.parametrize(("method", "off"), [(GroupDRO, {"eta": 0}), (RSC, {"fraction": 0})])
@pytest.mark.parametrize("precision", one_of("bf16", "fp32"))
def test_a_method_that_does_nothing_is_plain_training_to_the_bit(
    method, off, precision, draw_root, tmp_path, monkeypatch
):
    name = method.__name__.lower()
    monkeypatch.setattr(importlib.import_module(method.__module__), method.__name__, partial(method, **off))
    root, chosen = open_root(draw_root()), f"train.precision={precision}"
    run = train(settings(f"train.method={name}", chosen), root, tmp_path)
    assert_same_weights(run, train(settings(chosen), root, tmp_path))


@pytest.mark.parametrize("name", one_of("groupdro", *[*METHODS][1:]))
def test_a_run_with_a_method_goes_on_to_the_same_bits_and_leaves_a_plain_network(name, draw_root, tmp_path):
    root, config = open_root(draw_root()), settings(f"train.method={name}")
    whole = train(config, root, tmp_path / "whole")
    assert_same_weights(train_in_two_parts(config, root, tmp_path / "parts"), whole)
    plain = train(settings(), root, tmp_path / "whole")
    ours, theirs = content(whole), content(plain)
    assert ours["model_spec"] == theirs["model_spec"]
    assert ours.keys() == theirs.keys()
    assert ours["model"].keys() == theirs["model"].keys()
    assert any(not torch.equal(ours["model"][key], theirs["model"][key]) for key in ours["model"])
    assert not any(module._forward_hooks for module in load_model(whole.path).network.modules())
    assert evaluate(whole).meta.run.recipe.startswith(f"method={name}-")


def test_a_method_is_told_of_domains_and_of_steps_since_the_run_began(draw_root, tmp_path, monkeypatch):
    told = []

    class Recorder(Method):
        def batch(self, images, masks, domains, step):
            assert (images.dtype, images.shape, masks.shape) == (torch.uint8, (6, 3, 64, 64), (6, 2, 64, 64))
            told.append((step, domains.tolist()))
            return images, masks

        def loss(self, loss_of, logits, masks, domains, step):
            assert told[-1] == (step, domains.tolist())
            return super().loss(loss_of, logits, masks, domains, step)

    monkeypatch.setattr(mixstyle, "MixStyle", Recorder)
    root = open_root(draw_root())
    run = train(settings("train.method=mixstyle"), root, tmp_path / "recorded")
    assert told == [(step, [0, 0, 1, 1, 2, 2]) for step in range(4)]
    told.clear()
    train_in_two_parts(settings("train.method=mixstyle"), root, tmp_path / "parts")
    assert [step for step, _ in told] == [0, 1, 2, 3, 2, 3]  # the epoch that was cut off is repeated
    assert_same_weights(run, train(settings(), root, tmp_path / "plain"))  # to watch changes nothing


def test_a_method_that_keeps_no_tensors_is_refused(draw_root, tmp_path, monkeypatch):
    class Careless(Method):
        def state(self):
            return {"seen": [1, 2]}

    monkeypatch.setattr(mixstyle, "MixStyle", Careless)
    with pytest.raises(UsageError, match=r"mixstyle: state\(\) gives something else than tensors: return a dict"):
        train(settings("train.method=mixstyle"), open_root(draw_root()), tmp_path)
