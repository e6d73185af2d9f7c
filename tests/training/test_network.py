"""The network: what its weights depend on."""

import pytest
import torch

from workflow.training.network import build, weights_sha256

OPTIONS = dict(channels=(4, 8), strides=(2,), num_res_units=1, norm="batch")


def test_weights_depend_on_the_seed_and_not_on_the_generator_before():
    torch.manual_seed(5)
    first = weights_sha256(build(2, 4, seed=1, **OPTIONS))
    torch.rand(7)
    assert weights_sha256(build(2, 4, seed=1, **OPTIONS)) == first
    assert weights_sha256(build(2, 4, seed=2, **OPTIONS)) != first


@pytest.mark.parametrize("num_res_units", [0, 1, 2])
def test_the_prior_bias_starts_at_the_class_frequencies(num_res_units):
    options = OPTIONS | {"num_res_units": num_res_units}
    frequencies = (0.98, 0.015, 0.005)
    plain = build(1, 3, seed=1, **options)
    prior = build(1, 3, seed=1, class_frequencies=frequencies, **options)
    x = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        shift = (prior.eval()(x) - plain.eval()(x)).mean(dim=(0, 2, 3, 4))
    assert shift == pytest.approx(torch.tensor(frequencies).log(), abs=1e-4)


def test_anisotropic_strides_keep_the_shape():
    network = build(1, 2, seed=0, **OPTIONS | {"strides": ((2, 2, 1),)})
    assert network.eval()(torch.zeros(1, 1, 16, 16, 3)).shape == (1, 2, 16, 16, 3)
