"""SimCLR and t-SimCNE: their loss, their stages, what they read, and what they make of digits."""

import io
import itertools
import math
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from tests.helpers import interrupt_at, torch_threads
from torchdr_cne import Every, SimCLR, TSimCNE, load, losses
from torchdr_cne.distributed import Ranks
from torchdr_cne.evaluation import linear_probe
from torchdr_cne.images import ImageNetwork, simclr_augmentation
from torchdr_cne.images.loading import ImagePairs, _Asked
from torchdr_cne.images.sources import open_images
from torchdr_cne.networks.batches import Epochs
from torchdr_cne.parametric import InfoNCE
from torchdr_cne.similarities import Cauchy, CosineExp, Gaussian

DIGITS, Y = load_digits(return_X_y=True)
IMAGES = (DIGITS.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
SOME = IMAGES[:96]


def shift(image):
    """Return a view that suits 8 × 8 digits."""
    from torchvision.transforms import v2

    return v2.functional.affine(
        image,
        float(20 * torch.rand(()) - 10),
        [int(torch.randint(-1, 2, ())), int(torch.randint(-1, 2, ()))],
        1.0,
        [0.0],
    )


class Tiny(nn.Module):
    """A backbone that costs nothing: one convolution."""

    def __init__(self, n_channels=1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )

    def forward(self, x):
        return self.layers(x).flatten(1)


with torch.random.fork_rng():
    torch.manual_seed(0)
    TINY = Tiny()  # a backbone of one's own begins with its weights


def make(estimator=TSimCNE, **options):
    defaults = {"backbone": TINY, "data_transform": shift, "batch_size": 32, "random_state": 0}
    if estimator is TSimCNE:
        defaults["total_epochs"] = [3, 2, 2]
    return estimator(**{**defaults, **options})


def weights(encoder):
    return {name: value.clone() for name, value in encoder.state_dict().items()}


# ---- the loss ----------------------------------------------------------------------------------------------


def transcribed(z, similarity):
    """The loss of B pairs (rows i and i + B), written out in NumPy."""
    if similarity == "cosine":
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        log_q = (unit @ unit.T - 1) / 0.5
    else:
        log_q = -np.log1p(((z[:, None] - z[None]) ** 2).sum(axis=2))
    n = len(z)
    total = 0.0
    for i in range(n):
        others = [log_q[i, j] for j in range(n) if j != i]
        total += -log_q[i, (i + n // 2) % n] + np.log(np.sum(np.exp(others)))
    return total / n


@pytest.mark.parametrize("similarity", ["cauchy", "cosine"])
@pytest.mark.parametrize("d", [2, 32])
def test_the_loss_is_the_symmetrised_info_nce_over_the_whole_mini_batch(similarity, d):
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(20, d)))
    places = torch.arange(10)
    heads, tails = torch.cat([places, places + 10]), torch.cat([places + 10, places])
    q = Cauchy() if similarity == "cauchy" else CosineExp(0.5)
    found = float(InfoNCE(q).of_rows(z, heads, tails))
    assert found == pytest.approx(transcribed(z.numpy(), similarity), abs=1e-10)
    halves = []
    for a, b in ((z[:10], z[10:]), (z[10:], z[:10])):
        negatives = torch.stack([torch.cat([a[:i], a[i + 1 :], b[:i], b[i + 1 :]]) for i in range(10)])
        halves.append(sum(losses.info_nce(q(a, b), q(a.unsqueeze(1), negatives))).mean())
    assert found == pytest.approx(float(sum(halves)) / 2, abs=1e-10)


def test_without_the_positive_it_is_the_decoupled_loss():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3)))
    heads, tails = torch.arange(4), torch.arange(4) + 4
    log_q = Cauchy().table(z, z)
    expected = [
        -log_q[i, i + 4] + torch.logsumexp(torch.stack([log_q[i, j] for j in range(8) if j not in (i, i + 4)]), 0)
        for i in range(4)
    ]
    found = InfoNCE(Cauchy(), include_positive=False).of_rows(z, heads, tails)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-12)


def test_a_table_of_many_columns_has_the_distances_of_the_pairs():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 64)) + 100)
    expected = Cauchy()(z.unsqueeze(1), z.unsqueeze(0))
    torch.testing.assert_close(Cauchy().table(z, z), expected, rtol=0, atol=1e-10)


# ---- stages ----------------------------------------------------------------------------------------------


def test_the_second_stage_moves_the_last_layer_and_no_other_bit():
    seen = {}
    n = 3  # mini-batches an epoch

    def look(estimator, step):
        if step in (3 * n, 5 * n, 7 * n):
            seen[step // n] = weights(estimator.encoder_)

    make(callbacks=Every(n, look)).fit(SOME)
    moved = {name for name in seen[3] if not torch.equal(seen[3][name], seen[5][name])}
    assert moved == {"head.2.narrow.weight", "head.2.narrow.bias"}
    moved = {name for name in seen[5] if not torch.equal(seen[5][name], seen[7][name])}
    assert {"backbone.layers.0.weight", "backbone.layers.1.running_mean", "head.0.weight"} <= moved
    assert not {"head.2.wide.weight", "head.2.wide.bias"} & moved


def test_the_last_layer_begins_with_weights_of_a_standard_normal_distribution():
    head = ImageNetwork("small", pretrain_dim=128).build((1, 8, 8), 2).head
    assert head[2].narrow.weight.shape == (2, 1024)
    assert float(head[2].narrow.weight.detach().std()) == pytest.approx(1, abs=0.1)
    assert head[2].wide.weight.shape == (128, 1024)


def cosine(step, warmup, total, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def test_rates_and_warm_up_are_those_of_the_table():
    fitted = make(total_epochs=[120, 4, 100], check_interval=1, data_transform="is_included").fit(SOME[:8])
    peak = 0.03 * 32 / 256
    expected = [cosine(t, 10, 120, peak) for t in range(120)] + [cosine(t, 0, 4, peak) for t in range(4)]
    expected += [cosine(t, 10, 100, peak / 1000) for t in range(100)]
    np.testing.assert_allclose(fitted.history_["learning_rate"], expected, rtol=1e-10, atol=1e-18)


def test_each_stage_has_a_new_optimiser_with_the_table_s_constants(monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *arguments, **keywords):
        group = self.param_groups[0]
        largest = max(float(p.grad.abs().max()) for p in group["params"])
        seen.append((id(self), group["momentum"], group["weight_decay"], len(group["params"]), largest))
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    make(loss=1e4 * InfoNCE(), lr=1e-9).fit(SOME)
    assert {(momentum, decay) for _, momentum, decay, *_ in seen} == {(0.9, 5e-4)}
    assert [len({entry[0] for entry in seen[a:b]}) for a, b in ((0, 9), (9, 15), (15, 21))] == [1, 1, 1]
    assert [seen[step][3] for step in (0, 9, 15)] == [8, 2, 8]
    assert max(entry[4] for entry in seen) == 4.0  # where it was larger, it is cut


def test_trainer_options_override_the_clipping():
    by_value = make(lr=20.0, total_epochs=4, trainer_kwargs={"gradient_clip_val": 1e-3}).fit(SOME)
    default = make(lr=20.0, total_epochs=4).fit(SOME)
    assert max(by_value.history_["grad_norm"]) <= 1e-3 * sum(p.numel() for p in by_value.encoder_.parameters()) ** 0.5
    by_norm = make(
        total_epochs=4, trainer_kwargs={"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "norm"}, check_interval=1
    ).fit(SOME)
    np.testing.assert_allclose(by_norm.history_["grad_norm"], 1e-3, rtol=1e-3)
    assert max(default.history_["grad_norm"]) > max(by_value.history_["grad_norm"])


def test_three_epochs_learn_more_than_none():
    options = {"lr": 0.1, "batch_size": 128, "check_interval": 1}
    history = make(backbone="small", total_epochs=3, **options).fit(IMAGES[:512]).history_["loss"]
    assert np.mean(history[-3:]) < np.mean(history[:3]) - 0.2


@pytest.mark.parametrize("options", [{"total_epochs": 4}, {"out_dim": 3}, {"pretrain_out_dim": 2}, {"out_dim": 128}])
def test_any_number_of_outputs_and_stages_will_do(options):
    embedding = make(**options).fit_transform(SOME)
    assert embedding.shape == (96, options.get("out_dim", 2))
    assert embedding.dtype == np.float32
    assert (embedding.std(axis=0) > 0).all()


def test_annealing_turns_the_further_outputs_down_until_the_map_has_two():
    widths = []
    n = 3

    def look(estimator, step):
        layer = estimator.encoder_.head[2]
        widths.append(layer._rest)
        assert estimator.embedding_.shape == (96, 2)

    fitted = make(dim_annealing=True, callbacks=Every(1, look)).fit(SOME)
    assert widths[: 3 * n] == [1.0] * 9
    assert widths[3 * n : 5 * n] == pytest.approx([1 - k / 6 for k in range(6)])
    assert widths[5 * n :] == [0.0] * 6
    assert fitted.embedding_.shape == (96, 2)
    with pytest.raises(ValueError, match="dim_annealing=True needs three stages"):
        make(dim_annealing=True, total_epochs=3).fit(SOME)


def test_a_fit_goes_on_in_any_stage_with_the_same_bits(tmp_path):
    def build(**more):
        return make(checkpoint_every=2, num_workers=0, **more)

    expected = build().fit(SOME)
    for step in (5, 9, 13, 20):
        with pytest.warns(UserWarning, match=f"interrupted after {step} iterations"):
            build(checkpoint_dir=tmp_path, callbacks=interrupt_at(step)).fit(SOME)
    resumed = build(checkpoint_dir=tmp_path).fit(SOME)
    np.testing.assert_array_equal(resumed.embedding_, expected.embedding_)
    found = weights(resumed.encoder_)
    assert all(torch.equal(value, found[name]) for name, value in expected.encoder_.state_dict().items())


# ---- networks ----------------------------------------------------------------------------------------------


def test_the_reference_backbone_has_its_stem_and_its_number_of_parameters():
    encoder = ImageNetwork("resnet18_simclr").build((3, 32, 32), 2)
    stem = encoder.backbone.conv1
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert sum(value.numel() for value in encoder.backbone.parameters()) == 11_168_832
    assert isinstance(encoder.backbone.maxpool, nn.Identity)
    assert [tuple(layer.weight.shape) for layer in encoder.head if hasattr(layer, "weight")] == [(1024, 512), (2, 1024)]


@pytest.mark.parametrize(("name", "width"), [("resnet50_simclr", 2048), ("mobilenet_v3_small", 1024), ("small", 128)])
def test_backbones_take_any_number_of_channels_and_give_their_features(name, width):
    encoder = ImageNetwork(name).build((2, 32, 24), 2).eval()
    assert encoder.features(torch.rand(2, 2, 32, 24)).shape == (2, width)
    assert encoder(torch.rand(2, 2, 32, 24)).shape == (2, 2)


def test_a_model_of_one_s_own_keeps_its_weights_but_for_the_output():
    own = nn.Sequential(Tiny(), nn.Linear(32, 5))
    before = weights(own)
    fitted = make(model=own, total_epochs=[1, 1, 1], lr=[1e-9, 1e-9, 1e-9]).fit(SOME)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    torch.testing.assert_close(fitted.encoder_.head[0].layers[0].weight.detach(), before["0.layers.0.weight"])
    assert fitted.embedding_.shape == (96, 2)
    with pytest.raises(ValueError, match="model= has no backbone of its own"):
        fitted.features(SOME)


def test_images_that_are_not_square_and_other_sizes_are_brought_to_the_fit_s():
    wide = np.repeat(SOME, 2, axis=2)
    fitted = make(image_size=(8, 12)).fit(wide)
    assert fitted.input_shape_ == (1, 8, 12)
    assert fitted.transform(IMAGES[:5]).shape == (5, 2)
    assert make().fit(wide).input_shape_ == (1, 8, 16)


# ---- reading ----------------------------------------------------------------------------------------------


class Pictures(Dataset):
    def __init__(self, images=SOME, bad=()):
        self.images, self.bad = images, bad

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        if number in self.bad:
            raise OSError("truncated")
        return Image.fromarray(self.images[number]), int(Y[number])


def folder_of(path, images=SOME):
    for number, image in enumerate(images):
        (path / f"digit {Y[number]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / f"digit {Y[number]}" / f"{number:04d}.png")
    return path


def test_arrays_data_sets_folders_and_tensors_give_the_same_map(tmp_path):
    fitted = make().fit(SOME)
    assert fitted.labels_.tolist() == [-1] * 96
    of_set = make().fit(Pictures())
    np.testing.assert_array_equal(of_set.embedding_, fitted.embedding_)
    assert of_set.labels_.tolist() == Y[:96].tolist()
    places, labels = of_set.transform(folder_of(tmp_path / "all"), return_labels=True)
    order = np.argsort(Y[:96], kind="stable")  # files come in the order of their names
    np.testing.assert_array_equal(places, fitted.embedding_[order])
    assert labels.tolist() == Y[:96][order].tolist()
    palette = [Image.fromarray(image).convert("RGB").convert("P") for image in SOME]
    assert make(backbone="small", total_epochs=1).fit(palette).input_shape_ == (3, 8, 8)
    for same in (
        SOME[..., None],
        list(SOME),
        torch.from_numpy(SOME),
        torch.from_numpy(SOME).unsqueeze(1),
        list(Pictures()),
    ):
        np.testing.assert_array_equal(fitted.transform(same), fitted.embedding_)
    np.testing.assert_allclose(fitted.transform((SOME / 255).astype(np.float32)), fitted.embedding_, atol=1e-4)
    assert make().fit(tmp_path / "all").classes_ == [f"digit {k}" for k in range(10)]


@pytest.mark.parametrize("label", ["three", None, 2.5, float("nan"), np.array([1, 2])])
def test_labels_that_are_no_whole_numbers_are_minus_one(label):
    fitted = make(total_epochs=1).fit([(image, label) for image in SOME[:40]])
    assert fitted.labels_.tolist() == [-1] * 40
    names = np.array(["a", "b"])[Y[:40] % 2]
    assert make(total_epochs=1).fit(SOME[:40], names).labels_.tolist() == names.tolist()


def test_images_of_one_pixel_are_augmented_too():
    pixels = SOME[:, 4:5, 4:5]
    pairs = ImagePairs(open_images(pixels), make(data_transform=None)._loading((1, 1)))
    views = next(pairs.stream(0, 0, Ranks()))
    assert views[0].shape[1:] == (1, 1, 1)
    assert not torch.equal(*views)


def test_transform_keeps_the_order_and_never_augments():
    fitted = make().fit(SOME)
    np.testing.assert_array_equal(fitted.transform(SOME), fitted.embedding_)
    order = np.random.default_rng(0).permutation(96)
    np.testing.assert_allclose(fitted.transform(SOME[order]), fitted.embedding_[order], atol=1e-5)
    unseen = IMAGES[200:230]
    np.testing.assert_array_equal(fitted.transform(unseen), fitted.transform(unseen))


def test_workers_change_no_bit_and_leave_global_random_numbers_alone():
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = state()
    one = make(data_transform=simclr_augmentation(8)).fit(SOME)
    assert state() == before
    two = make(data_transform=simclr_augmentation(8), num_workers=2).fit(SOME)
    np.testing.assert_array_equal(one.embedding_, two.embedding_)
    other = make(data_transform=simclr_augmentation(8), random_state=1).fit(SOME)
    assert not np.array_equal(one.embedding_, other.embedding_)


def test_ranks_divide_the_images_of_a_mini_batch_and_the_views_stay_the_same():
    def batches(rank, size):
        asked = _Asked(Epochs(96, 3, 3, 5), 5, 2, 3, SimpleNamespace(rank=rank, size=size))
        return [sorted(batch) for batch in itertools.islice(asked, 4)]

    whole, halves = batches(0, 1), (batches(0, 2), batches(1, 2))
    assert [sorted(first + second) for first, second in zip(*halves, strict=True)] == whole
    assert sorted(number for batch in whole[1:] for number, _ in batch) == list(range(96))  # an epoch
    assert {key for _, key in whole[0]}.isdisjoint(key for _, key in whole[3])


def test_colour_images_are_augmented_as_simclr_does_and_learned_from():
    colour = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    fitted = TSimCNE(backbone="small", total_epochs=2, batch_size=20, random_state=0).fit(colour)
    assert fitted.input_shape_ == (3, 12, 12)
    assert fitted.embedding_.shape == (40, 2)
    with pytest.raises(ValueError, match="images have 1 channels, and those of the fit 3; convert them"):
        fitted.transform(SOME)


def test_data_sets_may_hold_views_already():
    class Twice(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, number):
            image = torch.from_numpy(SOME[number]).float().unsqueeze(0) / 255
            return (image + 0.1 * torch.rand_like(image), image + 0.1 * torch.rand_like(image)), int(Y[number])

    class Once(Twice):
        def __getitem__(self, number):
            (view, _), label = super().__getitem__(number)
            return view, label

    for data in (Twice(), Once()):
        fitted = make(data_transform="is_included").fit(data)
        assert fitted.embedding_.shape == (64, 2)
        assert fitted.labels_.tolist() == Y[:64].tolist()
        np.testing.assert_array_equal(fitted.transform(data), fitted.transform(data))


def test_images_that_cannot_be_read_are_named_and_counted_and_left_out_on_request(tmp_path):
    folder = folder_of(tmp_path / "some")
    bad = sorted(folder.rglob("*.png"))[10:13]
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3 of 96 images cannot be read: .*0.*png.*skip_unreadable=True"):
        make().fit(folder)
    with pytest.warns(UserWarning, match="3 of 96 images cannot be read and are left out: .*png"):
        fitted = make(skip_unreadable=True).fit(folder)
    assert fitted.embedding_.shape == (93, 2)
    assert fitted.skipped_ == [10, 11, 12]
    with pytest.raises(ValueError, match=r"2 of 96 images cannot be read: image 3 \(OSError: truncated\), image 90"):
        make(num_workers=1).fit(Pictures(bad=(3, 90)))


class Endless(IterableDataset):
    def __iter__(self):
        yield from SOME


class Unsized:
    def __getitem__(self, number):
        return SOME[number]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Unsized(), TypeError, "Unsized has no length; epochs need one"),
        (Endless(), TypeError, "Endless"),
        (torch.utils.data.DataLoader(Pictures()), TypeError, "a DataLoader was given; pass its dataset"),
        (SOME[:1], ValueError, "1 image makes no contrast"),
        (SOME[:0], ValueError, "there are no images"),
        (DIGITS, ValueError, r"images of shape \(1797, 64\) were given"),
        (SOME.astype(float), ValueError, "images have values from 0 to 255; scale floats"),
        (SOME.astype(np.int64), ValueError, "images of dtype int64 were given"),
        (np.full((4, 8, 8), np.nan), ValueError, "images have values from nan"),
        ("digits.beton", ValueError, "is a file of FFCV, which is no longer maintained"),
        ("/nowhere", ValueError, "/nowhere is no folder of images"),
        ([1, 2, 3], TypeError, "image 0 is a int; give PIL images, arrays"),
    ],
)
def test_what_is_no_set_of_images_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        make().fit(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_epochs": [3, 2]}, r"total_epochs=\[3, 2\] has 2 stages; TSimCNE has 1 or 3"),
        ({"total_epochs": [3, 0, 2]}, "total_epochs=.* must be an integer >= 1"),
        ({"lr": [0.1, 0.1]}, "lr=.* has 2 values for 3 stages"),
        ({"lr": "auto"}, "lr='auto' must be 'auto_batch'"),
        ({"warmup": [3, 0, 0]}, "warmup=.* fewer than those of the stage"),
        ({"backbone": "resnet19"}, "backbone='resnet19' is unknown"),
        ({"projection_head": "mpl"}, "projection_head='mpl'"),
        ({"model": "resnet18"}, "model='resnet18' must be a torch.nn.Module"),
        ({"model": Tiny()}, "Tiny has no linear layer"),
        ({"loss": "nce"}, "loss='nce' is unknown"),
        ({"metric": "hyperbolic"}, "metric='hyperbolic'"),
        ({"data_transform": "included"}, "data_transform='included' is unknown"),
        ({"trainer_kwargs": {"max_epochs": 3}}, "trainer_kwargs has max_epochs; this loop knows gradient_clip_val"),
        ({"trainer_kwargs": {"gradient_clip_val": -1}}, "gradient_clip_val=-1 must be a number > 0"),
        ({"dl_kwargs": {"shuffle": False}}, "dl_kwargs has shuffle, which the estimator sets"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"freeze_schedule": "all"}, "freeze_schedule='all'"),
        ({"optimizer": "lion"}, "optimizer='lion' is unknown"),
        ({"float32_matmul_precision": "low"}, "float32_matmul_precision='low'"),
        ({"image_size": 0}, "image_size=0 must be an integer >= 1, height and width, or None"),
        ({"image_size": "large"}, "image_size='large' must be"),
        ({"backbone": nn.Linear(3, 2)}, r"the backbone cannot take images of shape \(1, 8, 8\)"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options).fit(SOME)


def test_other_mistakes_are_told():
    with pytest.raises(ValueError, match="y has 3 labels for 96 images"):
        make().fit(SOME, Y[:3])
    with pytest.raises(ValueError, match="TSimCNE takes no graph"):
        make().fit(SOME, graph=np.eye(96))
    with pytest.raises(TypeError, match="what data_transform gives is a NoneType; give PIL images"):
        make(data_transform=lambda image: None).fit(SOME)
    with pytest.raises(ValueError, match="do not have the same number of channels"):
        make(data_transform="is_included").fit([Image.fromarray(SOME[0]), Image.new("RGB", (8, 8))] * 4)


# ---- what comes of it ----------------------------------------------------------------------------------------------


def after_training(size, total_epochs, lr, batch_size):
    """Return accuracy in the map of digits, that in the plane of their principal components, and the views' distance.

    The last is relative to the distance of two images' views.
    """
    from sklearn.decomposition import PCA
    from torchvision.transforms import v2

    from torchdr_cne.evaluation import knn_accuracy

    large = np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in IMAGES]
    )
    view = v2.RandomAffine(15, (0.12, 0.12), (0.75, 1.25), shear=10)
    # The bits of a convolution's gradient depend on the number of threads, and so does the last hundredth.
    with torch_threads(2):
        fitted = TSimCNE(
            backbone="small",
            total_epochs=total_epochs,
            lr=lr,
            batch_size=batch_size,
            random_state=0,
            data_transform=view,
        ).fit(large)
    accuracy = knn_accuracy(fitted.embedding_, Y, n_neighbors=15)
    of_pixels = knn_accuracy(PCA(2).fit_transform(large.reshape(len(large), -1)), Y, n_neighbors=15)
    torch.manual_seed(0)
    views = [fitted.transform(np.stack([np.asarray(view(Image.fromarray(x))) for x in large[:500]])) for _ in range(2)]
    near, far = (np.linalg.norm(views[0] - np.roll(views[1], by, axis=0), axis=1).mean() for by in (0, 250))
    return accuracy, of_pixels, near / far


def test_views_lie_close_together_and_digits_apart_after_half_a_minute():
    accuracy, _, distance = after_training(12, [8, 2, 6], [0.12, 0.06, 0.012], batch_size=128)
    assert accuracy >= 0.5  # of ten classes
    assert distance < 0.3


@pytest.mark.repetition
def test_digits_are_further_apart_than_in_the_plane_of_principal_components_after_two_minutes():
    accuracy, of_pixels, distance = after_training(16, [25, 3, 25], [0.06, 0.03, 0.006], batch_size=256)
    assert accuracy >= of_pixels + 0.1
    assert distance < 0.3


def test_simclr_s_features_serve_a_linear_probe():
    fitted = make(SimCLR, backbone="small", total_epochs=8, batch_size=128, lr=0.1).fit(IMAGES[:600])
    assert fitted.embedding_.shape == (600, 128)
    features = fitted.features(IMAGES[:600])
    assert features.shape == (600, 128)
    untrained = make(SimCLR, backbone="small", total_epochs=1, batch_size=128, lr=1e-9).fit(IMAGES[:600])
    assert linear_probe(features, Y[:600]) > max(0.85, linear_probe(untrained.features(IMAGES[:600]), Y[:600]))


def test_a_saved_estimator_maps_as_before(tmp_path):
    fitted = make(backbone="small").fit(SOME)
    fitted.set_params(data_transform=None)
    fitted.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(SOME), fitted.embedding_)
    colour = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    fitted = make(backbone="small", data_transform=None, total_epochs=1).fit(colour)
    fitted.save(tmp_path / "colour")
    np.testing.assert_array_equal(load(tmp_path / "colour").transform(colour), fitted.embedding_)
    own = make(data_transform=None).fit(SOME)
    own.save(tmp_path / "own")
    loaded = load(tmp_path / "own", modules={"backbone": TINY})
    np.testing.assert_array_equal(loaded.transform(SOME), own.embedding_)


def test_half_precision_is_for_the_network_only_and_precision_settings_are_set_back():
    before = torch.get_float32_matmul_precision()
    fitted = make(mixed_precision=True, float32_matmul_precision="medium").fit(SOME)
    assert torch.get_float32_matmul_precision() == before
    assert fitted.embedding_.dtype == np.float32
    assert fitted.half_precision_
    assert not np.array_equal(fitted.embedding_, make().fit(SOME).embedding_)
    assert {value.dtype for value in fitted.encoder_.parameters()} == {torch.float32}


def test_progress_tells_the_losses_and_the_time_that_is_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    make(verbose=True, check_interval=7).fit(SOME)
    assert re.search(r"TSimCNE: .* 21/21 \[\d\d:\d\d<\d\d:\d\d, .*loss=\d", sys.stderr.getvalue())


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "gauss", Gaussian()])
def test_metrics_are_names_or_similarities(metric):
    fitted = make(metric=metric).fit(SOME)
    same = make(loss=InfoNCE(fitted._similarity())).fit(SOME)
    np.testing.assert_array_equal(fitted.embedding_, same.embedding_)
