import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from litmlp.data.in_memory import Batches, DataError, InMemoryData, Normalize, Samples, UndividedData, split


def numbered(num_samples):
    """Samples that can be told apart: x and y are their number."""
    numbers = torch.arange(num_samples)
    return Samples(numbers.float().view(-1, 1), numbers)


class Numbered(InMemoryData):
    """100 training and 30 test samples, four classes of unequal size; x is the sample's number."""

    sample_shape = (2,)
    num_outputs = 4
    max_value = 200.0

    def load(self):
        numbers = torch.arange(130)
        classes = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 3])[numbers % 10]
        x = torch.stack([numbers, 7 * torch.ones(130)], 1).to(torch.uint8)
        return Samples(x[:100], classes[:100]), Samples(x[100:], classes[100:])


class Undivided(UndividedData):
    sample_shape = (1,)
    num_outputs = 4

    def load_all(self):
        numbers = torch.arange(100)
        return Samples(numbers.float().view(-1, 1), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])[numbers % 10])


def set_up(data):
    data.setup()
    return data


def ids(samples):
    return samples.x[:, 0].long().tolist()


def shares(samples):
    return torch.bincount(samples.y, minlength=4) / len(samples.y)


# Batches


@pytest.mark.parametrize("num_samples", [1, 7, 64, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 64, 1000])
@pytest.mark.parametrize("seed", [None, 0])
def test_an_epoch_covers_every_sample_exactly_once(num_samples, batch_size, seed):
    batches = list(Batches(numbered(num_samples), batch_size, seed))
    seen = torch.cat([batch.y for batch in batches])
    assert torch.equal(seen.sort().values, torch.arange(num_samples))
    sizes = [len(batch.y) for batch in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= batch_size


@pytest.mark.parametrize(("num_samples", "batch_size"), [(1, 1), (10, 3), (12, 4), (5, 8)])
def test_len_is_the_number_of_batches(num_samples, batch_size):
    batches = Batches(numbered(num_samples), batch_size)
    assert len(batches) == len(list(batches))


def test_x_and_y_stay_together():
    for batch in Batches(numbered(50), 7, seed=3):
        assert torch.equal(batch.x[:, 0].long(), batch.y)


def order(seed, epoch, batch_size=16, num_samples=60):
    batches = Batches(numbered(num_samples), batch_size, seed)
    batches.set_epoch(epoch)
    return torch.cat([batch.y for batch in batches]).tolist()


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    expected = order(seed=5, epoch=3)
    torch.manual_seed(99)
    np.random.seed(99)
    state = torch.get_rng_state()
    assert order(seed=5, epoch=3) == expected
    assert order(seed=5, epoch=3, batch_size=7) == expected
    assert torch.equal(torch.get_rng_state(), state), "drawing the order moves no global generator"
    batches = Batches(numbered(60), 16, seed=5)
    for epoch in (0, 1, 2, 3):
        batches.set_epoch(epoch)
        seen = torch.cat([batch.y for batch in batches]).tolist()
    assert seen == expected, "whatever epochs came before"


def test_the_order_differs_between_epochs_and_between_seeds():
    orders = [order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert len({tuple(each) for each in orders}) == 9


def test_unshuffled_samples_keep_their_order_in_every_epoch():
    assert order(seed=None, epoch=0) == order(seed=None, epoch=4) == list(range(60))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("seed", [None, 0])
def test_the_processes_shares_make_up_the_single_process_batch(world_size, seed):
    samples = numbered(53)
    ranks = [Batches(samples, 10, seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    for batches in ranks:
        batches.set_epoch(2)
    whole = Batches(samples, 10, seed)
    whole.set_epoch(2)
    for expected, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([part.y for part in parts]), expected.y)  # so they are disjoint
        sizes = [len(part.y) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("seed", [None, 0])
def test_transforms_leave_the_stored_samples_alone(dtype, seed):
    samples = Samples(torch.arange(40).view(20, 2).to(dtype), torch.arange(20))
    before = samples.x.clone()
    normalize = Normalize(torch.tensor(0.5), torch.tensor(-1.0))
    for batch in Batches(samples, 6, seed, transform=lambda x: normalize(x).mul_(3)):
        assert batch.x.dtype == torch.float32
        batch.x.zero_()
    assert torch.equal(samples.x, before)


def test_normalize_computes_scale_and_shift_in_float32():
    x = torch.tensor([[0, 128], [255, 1]], dtype=torch.uint8)
    normalize = Normalize(torch.tensor([2.0, 4.0]), torch.tensor([1.0, -1.0]))
    assert torch.equal(normalize(x), torch.tensor([[1.0, 511.0], [511.0, 3.0]]))


# InMemoryData


@pytest.mark.parametrize(("val_size", "num_val"), [(0.1, 10), (0.25, 25), (20, 20), (20.0, 20)])
def test_the_validation_part_is_a_fraction_or_a_count(val_size, num_val):
    data = set_up(Numbered(val_size=val_size))
    assert len(data.val.y) == num_val
    assert sorted(ids(data.train) + ids(data.val)) == list(range(100))
    assert ids(data.test) == list(range(100, 130))


def test_no_validation_part_leaves_all_samples_to_training():
    data = set_up(Numbered(val_size=0))
    assert data.val is None
    assert not data.val_dataloader()
    assert ids(data.train) == list(range(100))


def test_the_split_is_stratified():
    data = set_up(Numbered(val_size=20))
    assert torch.equal(shares(data.val), torch.tensor([0.5, 0.3, 0.1, 0.1]))
    assert torch.equal(shares(data.train), torch.tensor([0.5, 0.3, 0.1, 0.1]))


def test_the_split_depends_on_split_seed_alone():
    val = ids(set_up(Numbered(val_size=20, split_seed=1, seed=1)).val)
    torch.manual_seed(5)
    assert ids(set_up(Numbered(val_size=20, split_seed=1, seed=2)).val) == val
    assert ids(set_up(Numbered(val_size=20, split_seed=2, seed=1)).val) != val


def test_setup_again_changes_nothing():
    data = set_up(Numbered())
    train = data.train
    data.setup("test")
    assert data.train is train


def test_validate_on_test_validates_on_the_test_samples():
    data = set_up(Numbered(val_size=0, validate_on_test=True))
    assert ids(data.train) == list(range(100))
    assert ids(data.val) == ids(data.test)
    pairs = zip(data.val_dataloader(), data.test_dataloader(), strict=True)
    assert all(torch.equal(val.x, test.x) for val, test in pairs)


def test_without_normalization_x_is_divided_by_max_value():
    data = set_up(Numbered(val_size=0))
    torch.testing.assert_close(data.transform(data.train.x), data.train.x / 200)


def test_mean_and_std_are_those_of_x_scaled_to_one():
    data = set_up(Numbered(val_size=0, normalize=[0.3, 0.2]))
    torch.testing.assert_close(data.transform(data.train.x), (data.train.x / 200 - 0.3) / 0.2)


def test_fit_normalizes_each_feature_by_the_training_part_alone():
    data = set_up(Numbered(val_size=20, normalize="fit"))
    x = data.train.x[:, 0].double()
    normalized = data.transform(data.test.x)
    expected = (data.test.x[:, 0] - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(normalized[:, 0], expected.float())
    assert not normalized[:, 1].any(), "a feature that never varies is centred only"
    train = data.transform(data.train.x)[:, 0]
    assert float(train.mean()) == pytest.approx(0, abs=1e-6)
    assert float(train.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_augment_sees_training_batches_alone_after_normalization():
    seen = []

    def augment(x):
        seen.append(x.clone())
        return x + 100

    data = set_up(Numbered(val_size=20, shuffle=False, normalize=[0.5, 0.1], augment=augment))
    train = torch.cat([batch.x for batch in data.train_dataloader()])
    expected = data.transform(data.train.x)
    assert torch.equal(torch.cat(seen), expected)
    assert torch.equal(train, expected + 100)
    seen.clear()
    val = torch.cat([batch.x for batch in data.val_dataloader()])
    test = torch.cat([batch.x for batch in data.test_dataloader()])
    assert torch.equal(val, data.transform(data.val.x))
    assert torch.equal(test, data.transform(data.test.x))
    assert not seen


def test_training_batches_are_shuffled_by_seed_and_evaluation_is_not():
    data = set_up(Numbered(batch_size=16, eval_batch_size=8, val_size=20, seed=3))
    expected = torch.cat([batch.y for batch in Batches(data.train, 16, seed=3)])
    assert torch.equal(torch.cat([batch.y for batch in data.train_dataloader()]), expected)
    assert torch.equal(torch.cat([batch.y for batch in data.val_dataloader()]), data.val.y)
    assert [len(batch.y) for batch in data.test_dataloader()] == [8, 8, 8, 6]
    unshuffled = set_up(Numbered(shuffle=False))
    assert torch.equal(torch.cat([batch.y for batch in unshuffled.train_dataloader()]), unshuffled.train.y)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"eval_batch_size": -1},
        {"val_size": -0.1},
        {"val_size": 1.5},
        {"validate_on_test": True},
        {"normalize": "auto"},
        {"normalize": [0.5]},
        {"normalize": [0.5, 0.0]},
        {"normalize": [0.5, -1.0]},
        {"seed": -1},
    ],
    ids=str,
)
def test_a_bad_argument_is_named(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} "):
        Numbered(**bad)


@pytest.mark.parametrize("bad", [{"val_size": 100}, {"val_size": 0.999}, {"batch_size": 91}], ids=str)
def test_an_argument_that_does_not_suit_the_data_is_named_by_setup(bad):
    data = Numbered(**bad)
    with pytest.raises(ValueError, match=f"^{next(iter(bad))}="):
        data.setup()


def test_a_validation_part_too_small_for_every_class_is_named_by_setup():
    data = Numbered(val_size=2)
    with pytest.raises(ValueError, match="val_size"):
        data.setup()


# UndividedData


@pytest.mark.parametrize(("test_size", "num_test"), [(0.2, 20), (30, 30)])
def test_the_test_part_is_a_fraction_or_a_count(test_size, num_test):
    data = set_up(Undivided(test_size=test_size, val_size=10, batch_size=8))
    assert len(data.test.y) == num_test
    assert len(data.val.y) == 10
    assert sorted(ids(data.train) + ids(data.val) + ids(data.test)) == list(range(100))
    assert torch.equal(shares(data.test), torch.tensor([0.5, 0.3, 0.2, 0.0]))


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("num_folds", [2, 7, 10])
def test_folds_are_disjoint_and_cover_the_samples(stratify, num_folds):
    parts = [Undivided(fold=fold, num_folds=num_folds, stratify=stratify).load() for fold in range(num_folds)]
    assert sorted(number for _, test in parts for number in ids(test)) == list(range(100))
    assert all(sorted(ids(train) + ids(test)) == list(range(100)) for train, test in parts)
    sizes = [len(test.y) for _, test in parts]
    assert max(sizes) - min(sizes) <= (3 if stratify else 1)  # stratified: one for each class


def test_folds_are_shuffled_seeded_and_stratified_as_scikit_learn_does():
    data = Undivided(fold=3, num_folds=5, split_seed=7)
    samples = data.load_all()
    _, test = data.load()
    folds = StratifiedKFold(5, shuffle=True, random_state=7).split(samples.x, samples.y)
    assert ids(test) == list(folds)[3][1].tolist()
    assert torch.equal(shares(test), shares(samples))
    assert ids(Undivided(fold=3, num_folds=5, split_seed=8).load()[1]) != ids(test)


def test_a_validation_part_is_taken_from_what_the_fold_leaves():
    data = set_up(Undivided(fold=0, num_folds=5, val_size=0.25, batch_size=8))
    assert [len(part.y) for part in (data.train, data.val, data.test)] == [60, 20, 20]
    assert sorted(ids(data.train) + ids(data.val) + ids(data.test)) == list(range(100))


def test_without_stratify_the_split_is_plainly_random():
    held_out = [tuple(split(numbered(20), 5, seed, stratify=False)[1].y.tolist()) for seed in range(3)]
    assert len(set(held_out)) == 3, "and takes targets that are all different"


@pytest.mark.parametrize(
    "bad",
    [
        {"test_size": -5},
        {"test_size": 2.5},
        {"num_folds": 1},
        {"num_folds": 2.5},
        {"fold": 10},
        {"fold": -1},
        {"batch_size": 0},
    ],
    ids=str,
)
def test_a_bad_argument_of_undivided_data_is_named(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} "):
        Undivided(**bad)


def test_test_size_zero_trains_and_tests_on_all_samples():
    data = set_up(Undivided(test_size=0, val_size=0))
    assert ids(data.train) == ids(data.test) == list(range(100))


@pytest.mark.parametrize("argument", ["test_size", "val_size"])
def test_a_fraction_that_comes_to_no_sample_is_named_by_setup(argument):
    data = Undivided(**{"batch_size": 8, argument: 0.001})
    with pytest.raises(ValueError, match=f"^{argument}="):
        data.setup()


def test_a_test_part_that_leaves_nothing_is_named_by_setup():
    with pytest.raises(ValueError, match=r"^test_size=100 "):
        Undivided(test_size=100).setup()


# What load() returned


class Given(InMemoryData):
    """Returns what it is given; three classes, or three targets."""

    sample_shape = (2,)
    num_outputs = 3
    stratify = False

    def __init__(self, parts, **options):
        super().__init__(batch_size=8, **options)
        self.parts = parts

    def load(self):
        return self.parts


class GivenWhole(UndividedData):
    sample_shape = (2,)
    num_outputs = 3

    def __init__(self, samples, **options):
        super().__init__(batch_size=8, **options)
        self.samples = samples

    def load_all(self):
        return self.samples


def good(num_samples=300):
    return Samples(torch.rand(num_samples, 2), torch.arange(num_samples) % 3)


def with_x(x, at=None, num_samples=300):
    samples = good(num_samples)
    if at is None:
        return samples._replace(x=x)
    samples.x[at] = x
    return samples


def with_y(y, at=None):
    samples = good()
    if at is None:
        return samples._replace(y=y)
    samples.y[at] = y
    return samples


BAD_SAMPLES = {
    "a label out of range": (with_y(3, at=217), ["label of sample 217", "is 3", "from 0 to 2 (num_outputs=3)"]),
    "a negative label": (with_y(-1, at=0), ["label of sample 0", "is -1"]),
    "labels from 1": (with_y(torch.arange(300) % 3 + 1), ["label of sample 2", "is 3"]),
    "too few labels": (with_y(torch.zeros(299, dtype=torch.long)), ["same length", "(300, 2)", "(299,)"]),
    "classes in a column": (with_y(torch.zeros(300, 1, dtype=torch.long)), ["classes of (300,)", "(300, 1)"]),
    "classes as int32": (with_y(torch.zeros(300, dtype=torch.int32)), ["int64", "torch.int32"]),
    "targets as float64": (with_y(torch.zeros(300, 3, dtype=torch.double)), ["float32", "torch.float64"]),
    "targets without axis": (with_y(torch.zeros(300)), ["targets of (300, 3)", "(300,)"]),
    "too few targets": (with_y(torch.zeros(300, 2)), ["targets of (300, 3)", "(300, 2)"]),
    "a target that is NaN": (
        with_y(torch.zeros(300, 3).index_fill(0, torch.tensor([250]), float("nan"))),
        ["y of sample 250", "holds nan"],
    ),
    "a feature that is NaN": (with_x(float("nan"), at=(123, 1)), ["x of sample 123", "holds nan"]),
    "an infinite feature": (with_x(-float("inf"), at=(299, 0)), ["x of sample 299", "holds -inf"]),
    "a feature beyond float32": (with_x(torch.full((300, 2), 1e300, dtype=torch.double)), ["sample 0", "1e+300"]),
    "a half that is infinite": (with_x(torch.full((300, 2), 1e9).half()), ["sample 0", "inf"]),
    "complex features": (with_x(torch.zeros(300, 2, dtype=torch.cfloat)), ["real numbers", "complex64"]),
    "another width": (with_x(torch.zeros(300, 3)), ["(3,)", "sample_shape is (2,)"]),
    "another shape": (with_x(torch.zeros(300, 1, 2)), ["(1, 2)", "sample_shape is (2,)"]),
    "one number": (with_x(torch.tensor(1.0)), ["same length", "()"]),
    "no samples": (good(0), ["no samples"]),
    "strings": (with_x(np.array([["a", "b"]] * 300)), ["two tensors", "ndarray of <U1"]),
    "objects": (with_x(np.array([[None, 1]] * 300)), ["two tensors", "ndarray of object"]),
    "a list of labels": (with_y([0] * 300), ["two tensors", "list"]),
    "a plain pair": ((torch.zeros(300, 2), torch.zeros(300)), ["Samples(x, y)", "tuple"]),
    "nothing": (None, ["Samples(x, y)", "NoneType"]),
}


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_what_load_returned_is_refused_with_class_part_and_sample(name):
    bad, expected = BAD_SAMPLES[name]
    cases = [
        ("Given, training part: ", Given((bad, good()))),
        ("Given, test part: ", Given((good(), bad))),
        ("GivenWhole, load_all(): ", GivenWhole(bad)),
        ("GivenWhole, load_all(): ", GivenWhole(bad, fold=0)),
    ]
    for start, data in cases:
        with pytest.raises(DataError) as caught:
            data.setup()
        message = str(caught.value)
        assert message.startswith(start)
        assert all(part in message for part in expected), message
        assert len(message.splitlines()) == 1
        assert data.train is data.test is None


def test_load_must_return_two_parts():
    for parts in (None, good(), (good(),), (good(), good(), good())):
        with pytest.raises(DataError, match=r"^Given(: load\(\) must return|, training part)"):
            Given(parts).setup()


def test_classes_need_more_than_one_output():
    data = Given((Samples(torch.rand(50, 2), torch.zeros(50, dtype=torch.long)), good()))
    data.num_outputs = 1
    with pytest.raises(DataError, match=r"num_outputs is 1; targets of a regression are float32 of \(50, 1\)"):
        data.setup()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int16, torch.float16, torch.float32, torch.float64])
def test_features_of_any_real_kind_are_taken(dtype):
    samples = Samples((10 * torch.rand(50, 2)).to(dtype), torch.arange(50) % 3)
    assert set_up(Given((samples, samples), val_size=0)).train.x.dtype == dtype


def test_large_numbers_are_finite():
    samples = with_x(torch.full((300, 2), 3e38))
    assert set_up(Given((samples, samples), val_size=0)).train is samples


class Named(Given):
    """Learns the names of its features from its file."""

    def load(self):
        self.feature_names = ["a", "b"]
        return super().load()


def test_checkpoints_hold_the_names_of_features():
    data = set_up(Named((good(), good())))
    state = data.state_dict()
    reopened = Named(None)
    assert not reopened.feature_names
    reopened.load_state_dict(state)
    assert reopened.feature_names == ["a", "b"]
    assert torch.equal(reopened.transform.scale, data.transform.scale)
    reopened.load_state_dict({name: state[name] for name in ("scale", "shift")})  # of an older version
    assert "feature_names" not in set_up(Given((good(), good()))).state_dict()


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", 3], "ab", ["a", "b", "c"]], ids=str)
def test_names_that_do_not_name_the_features_are_refused(names):
    data = Given((good(), good()))
    data.feature_names = names
    with pytest.raises(DataError, match="feature_names must be 2 different strings"):
        data.setup()
    with pytest.raises(DataError, match="feature_names"):
        Given(None).load_state_dict({"scale": torch.ones(()), "shift": torch.ones(()), "feature_names": names})
