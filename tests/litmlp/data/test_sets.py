import pytest
import torch
from sklearn.datasets import load_iris

from litmlp.data.digits import Digits
from litmlp.data.iris import Iris
from litmlp.data.linear import Linear


@pytest.mark.parametrize("cls", [Digits, Iris, Linear])
def test_samples_are_of_the_kind_that_the_class_promises(cls):
    data = cls(batch_size=5, val_size=0.2)
    data.setup()
    for part in (data.train, data.val, data.test):
        assert part.x.shape == (len(part.y), *data.sample_shape)
        if cls is Linear:
            assert part.y.shape == (len(part.x), data.num_outputs)
            assert part.y.dtype == torch.float32
        else:
            assert part.y.dtype == torch.int64
            assert set(part.y.tolist()) == set(range(data.num_outputs))


def test_digits_are_1797_images_that_scale_to_one():
    data = Digits(val_size=0, test_size=0.2)
    data.setup()
    assert (len(data.train.y), len(data.test.y)) == (1438, 359)
    assert data.train.x.dtype == torch.uint8
    assert data.transform(data.train.x).aminmax() == (0, 1)


def test_iris_are_150_flowers_50_of_each_species_unscaled():
    samples = Iris().load_all()
    assert torch.bincount(samples.y).tolist() == [50, 50, 50]
    assert samples.x[0].tolist() == pytest.approx([5.1, 3.5, 1.4, 0.2])
    data = Iris(batch_size=5)
    data.setup()
    assert torch.equal(data.transform(data.train.x), data.train.x)


def test_features_of_iris_are_called_as_in_scikit_learn():
    assert Iris.feature_names == tuple(load_iris().feature_names)


def test_linear_targets_follow_the_function_but_for_the_noise():
    data = Linear(num_inputs=20, num_train=2000, num_test=1000, weight=0.5, bias=3.0, noise=0.1, val_size=0)
    data.setup()
    assert (len(data.train.y), len(data.test.y)) == (2000, 1000)
    residuals = torch.cat([part.y[:, 0] - 3.0 - 0.5 * part.x.sum(1) for part in (data.train, data.test)])
    assert float(residuals.mean()) == pytest.approx(0, abs=5 * 0.1 / 3000**0.5)
    assert float(residuals.std()) == pytest.approx(0.1, rel=5 / 6000**0.5)


def test_linear_without_noise_is_exact():
    train, _ = Linear(noise=0.0).load()
    torch.testing.assert_close(train.y[:, 0], 0.05 + 0.01 * train.x.sum(1))


def test_linear_samples_are_a_function_of_split_seed():
    first, again, other = (Linear(split_seed=seed).load()[0].x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("bad", [{"num_inputs": 0}, {"num_train": -1}, {"num_test": 1.5}, {"noise": -0.1}], ids=str)
def test_a_bad_argument_of_linear_is_named(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} "):
        Linear(**bad)
