import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from sklearn.datasets import load_digits

from torchdr_cne.evaluation import class_similarity_matrix
from torchdr_cne.plotting import class_similarity, retrieval, scatter, thumbnails
from torchdr_cne.plotting._palette import MISSING

GREEN, RED, GREY = to_rgb("#2ca02c"), to_rgb("#d62728"), to_rgb("lightgrey")


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images[:600] / 16, data.target[:600]


@pytest.fixture(scope="module")
def embedding(digits):
    centers = 4 * np.c_[np.cos(digits[1]), np.sin(digits[1])]
    return centers + np.random.default_rng(0).normal(size=centers.shape)


def save(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue()[:4] == b"\x89PNG"


def pixels_of(ax):
    return np.asarray(ax.images[0].get_array())


def frame_of(ax):
    (color,) = {to_rgb(spine.get_edgecolor()) for spine in ax.spines.values()}
    return color


class TestClassSimilarity:
    def test_heatmaps_show_the_matrices_on_one_scale(self, digits):
        images, y = digits
        before = images.reshape(len(y), -1)
        after = (before - before.mean(axis=0))[:, :40]
        figure = class_similarity(before, torch.tensor(y), torch.tensor(after))
        assert [ax.get_title() for ax in figure.axes[:2]] == ["before", "after"]
        for ax, features in zip(figure.axes, (before, after), strict=False):
            np.testing.assert_array_equal(ax.images[0].get_array(), class_similarity_matrix(features, y)[0])
        lowest = class_similarity_matrix(after, y)[0].min()
        assert lowest < 0
        assert {ax.images[0].get_clim() for ax in figure.axes[:2]} == {(lowest, 1.0)}
        assert figure.axes[2].get_ylim() == pytest.approx((lowest, 1.0))
        save(figure)

    def test_cells_hold_their_numbers_and_a_lone_point_nan(self):
        figure = class_similarity([[1, 0], [1, 1], [0, -1]], ["a", "a", "b"])
        cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
        assert cells == {(0, 0): "0.71", (1, 0): "−0.35", (0, 1): "−0.35", (1, 1): "NaN"}
        assert figure.axes[0].get_xlabel() == "within 0.71 − between −0.35 = 1.06"
        shown = figure.axes[0].images[0]
        assert shown.cmap(np.ma.masked_invalid(shown.get_array()))[1, 1].tolist() == pytest.approx(MISSING)

    def test_contrast_counts_every_class_once_whatever_its_size(self, digits):
        images, y = digits
        rows = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:5], np.flatnonzero(y == 2)[:9]]
        matrix = class_similarity_matrix(images[rows].reshape(len(rows), -1), y[rows])[0]
        within, between = matrix.diagonal().mean(), matrix[[0, 0, 1], [1, 2, 2]].mean()
        label = class_similarity(images[rows].reshape(len(rows), -1), y[rows]).axes[0].get_xlabel()
        assert label == f"within {within:.2f} − between {between:.2f} = {within - between:.2f}"

    @pytest.mark.parametrize(("n_classes", "n_texts", "n_names"), [(12, 144, 12), (13, 0, 13), (101, 0, 0)])
    def test_numbers_are_left_out_beyond_12_classes_and_names_beyond_100(self, n_classes, n_texts, n_names):
        labels = np.arange(2 * n_classes) % n_classes
        ax = class_similarity(np.random.default_rng(0).normal(size=(len(labels), 3)), labels).axes[0]
        assert len(ax.texts) == n_texts
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == n_names

    def test_names_are_at_rows_and_columns_as_they_are_written(self):
        figure = class_similarity(np.eye(4) + 1, [0, 1, 1, 0], names=["a $b$ c", "d"])
        save(figure)
        for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
            assert [text.get_text() for text in labels] == ["a $b$ c", "d"]
            assert not any(text.get_parse_math() for text in labels)

    def test_one_class_has_nothing_between(self):
        assert class_similarity(np.eye(2) + 1, [0, 0]).axes[0].get_xlabel() == "within 0.80 − between NaN = NaN"

    def test_features_of_other_rows_and_too_few_names_are_refused(self):
        with pytest.raises(ValueError, match=r"labels has shape \(3,\), features has 2 rows"):
            class_similarity(np.eye(3), [0, 1, 1], np.eye(2))
        with pytest.raises(ValueError, match="names has 1 entries and does not name every one"):
            class_similarity(np.eye(3), [0, 1, 1], names=["a"])


class TestRetrieval:
    def test_each_query_is_in_a_row_before_what_was_found_in_its_order(self, digits):
        images, y = digits
        neighbors = np.array([[5, 9, 7], [1, 8, 3]])
        figure = retrieval(images[:2], images[neighbors], query_labels=y[:2], found_labels=y[neighbors])
        save(figure)
        drawn = np.array([pixels_of(ax)[..., 0] for ax in figure.axes])
        expected = images[[0, 5, 9, 7, 1, 1, 8, 3]]
        np.testing.assert_allclose(drawn / 255, expected, atol=0.5 / 255 + 1e-6)
        boxes = np.array([ax.get_position().bounds[:2] for ax in figure.axes]).reshape(2, 4, 2)
        assert (np.diff(boxes[:, :, 0], axis=1) > 0).all()
        assert (boxes[0, :, 1] > boxes[1, :, 1]).all()

    def test_frames_are_green_for_the_querys_label_and_red_for_another(self, digits):
        images = digits[0]
        figure = retrieval(
            images[:2],
            images[:6].reshape(2, 3, 8, 8),
            query_labels=["a", None],
            found_labels=np.array([["a", "b", None], ["a", "b", None]], dtype=object),
        )
        assert [frame_of(ax) for ax in figure.axes] == [GREY, GREEN, RED, GREY, GREY, GREY, GREY, GREY]

    @pytest.mark.parametrize("convert", [np.asarray, torch.tensor, np.float32], ids=["array", "tensor", "float"])
    def test_labels_are_compared_by_value(self, digits, convert):
        found_labels = convert(np.array([[3, 4]]))
        figure = retrieval(digits[0][:1], digits[0][None, 1:3], query_labels=[3], found_labels=found_labels)
        assert [frame_of(ax) for ax in figure.axes[1:]] == [GREEN, RED]

    def test_titles_are_labels_and_similarities_shown_literally(self, digits):
        figure = retrieval(
            digits[0][:1],
            digits[0][None, 1:3],
            query_labels=["$a$ b"],
            found_labels=[["x" * 40, "y"]],
            similarities=torch.tensor([[0.987, -0.5]]),
        )
        save(figure)
        assert [ax.get_title() for ax in figure.axes] == ["query\n$a$ b", "x" * 13 + "…\n0.99", "y\n-0.50"]
        plain = retrieval(digits[0][:1], digits[0][None, 1:3])
        assert [ax.get_title() for ax in plain.axes] == ["query", "", ""]

    def test_neither_titles_nor_images_overlap(self, digits):
        images = digits[0]
        wide = images[:6, :5].reshape(2, 3, 5, 8)
        labels = np.full((2, 3), "a label of some length")
        figure = retrieval(wide[:, 0], wide, query_labels=labels[:, 0], found_labels=labels, similarities=np.eye(2, 3))
        figure.draw_without_rendering()
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert max(box.y1 for box in boxes) <= figure.bbox.y1

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("kind", ["uint8", "float32", "bfloat16"])
    def test_grey_colour_and_opacity_of_bytes_and_floats_are_what_is_drawn(self, channels, kind):
        values = torch.randint(0, 256, (2, 4, 5, channels), dtype=torch.uint8)
        images = values if kind == "uint8" else (values / 255).to(getattr(torch, kind))
        figure = retrieval(images[:1], images[None, 1:])
        expected = values[1].numpy() if channels > 1 else values[1].numpy().repeat(3, axis=-1)
        drawn = pixels_of(figure.axes[1])
        np.testing.assert_allclose(drawn[..., : max(3, channels)], expected, atol=1 if kind == "bfloat16" else 0)
        assert channels == 4 or (drawn[..., 3] == 255).all()

    def test_a_dim_image_stays_dim(self):
        figure = retrieval(np.full((1, 4, 4), 0.2), np.full((1, 1, 4, 4), 51, dtype=np.uint8))
        assert {tuple(pixels_of(ax)[0, 0]) for ax in figure.axes} == {(51, 51, 51, 255)}

    @pytest.mark.parametrize(
        ("queries", "found", "options", "message"),
        [
            (
                torch.zeros(2, 3, 8, 8),
                torch.zeros(2, 4, 3, 8, 8),
                {},
                r"queries has shape \(2, 3, 8, 8\); pass \(m, H, W\) or \(m, H, W, C\).*"
                r"as in torch\.movedim\(queries, -3, -1\)",
            ),
            (
                np.zeros((2, 8, 8, 3)),
                np.zeros((2, 4, 3, 8, 8)),
                {},
                r"found has shape .* \(m, k, H, W, C\).*np\.moveaxis\(found, -3, -1\)",
            ),
            (np.zeros((2, 64)), np.zeros((2, 4, 64)), {}, r"queries has shape \(2, 64\); pass \(m, H, W\)"),
            (np.zeros((2, 8, 8)), np.zeros((2, 0, 8, 8)), {}, "none of them 0"),
            (np.zeros((2, 8, 8)), np.zeros((3, 4, 8, 8)), {}, r"pass found of shape \(2, k, 8, 8\)"),
            (np.zeros((2, 8, 8, 3)), np.zeros((2, 4, 8, 8)), {}, r"pass found of shape \(2, k, 8, 8, 3\)"),
            (np.zeros((2, 8, 8)) - 2.5, np.zeros((2, 4, 8, 8)), {}, r"queries holds floats from -2.5 to -2.5; scale"),
            (np.zeros((2, 8, 8)), np.full((2, 4, 8, 8), np.nan), {}, "found holds floats from nan to nan; scale"),
            (np.zeros((2, 8, 8), int), np.zeros((2, 4, 8, 8)), {}, "queries has dtype int64; pass uint8"),
            (
                np.zeros((2, 8, 8)),
                np.zeros((2, 4, 8, 8)),
                {"found_labels": [1, 2]},
                r"found_labels has shape \(2,\) and the images need \(2, 4\); pass one entry an image",
            ),
        ],
    )
    def test_images_and_labels_that_do_not_fit_are_refused(self, queries, found, options, message):
        with pytest.raises(ValueError, match=message):
            retrieval(queries, found, **options)


def boxes_of(ax):
    return np.array([image.get_extent() for image in ax.images])


class TestThumbnails:
    @pytest.mark.parametrize("shape", [(8, 8), (8, 3), (2, 8)])
    @pytest.mark.parametrize("max_images", [400, 30, 1])
    def test_no_image_overlaps_another_and_there_are_no_more_than_asked_for(self, digits, embedding, shape, max_images):
        images = digits[0][:, : shape[0], : shape[1]]
        ax = thumbnails(embedding, images, size=0.05, max_images=max_images)
        left, right, bottom, top = boxes_of(ax).T
        across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
        up = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
        overlaps = (across > 0) & (up > 0)
        assert not overlaps[~np.eye(len(left), dtype=bool)].any()
        assert max_images / 2 < len(left) <= max_images or max_images == 400
        extent = np.ptp(embedding, axis=0).max()
        np.testing.assert_allclose((right - left) / shape[1], (top - bottom) / shape[0])
        np.testing.assert_allclose(np.maximum(right - left, top - bottom), 0.05 * extent)

    def test_every_point_is_covered_by_or_near_an_image(self, digits, embedding):
        ax = thumbnails(embedding, digits[0], size=0.05)
        left, right, bottom, top = boxes_of(ax).T
        centers = np.c_[left + right, bottom + top] / 2
        distances = np.abs(embedding[:, None] - centers).max(axis=2).min(axis=1)
        assert distances.max() < 1.25 * (right - left)[0]

    def test_an_image_is_upright_at_its_point_and_the_others_are_dots(self, digits, embedding):
        images, y = digits
        ax = thumbnails(embedding, images, y)
        left, right, bottom, top = boxes_of(ax).T
        centers = np.c_[left + right, bottom + top] / 2
        rows = np.array([np.abs(embedding - center).sum(axis=1).argmin() for center in centers])
        np.testing.assert_allclose(embedding[rows], centers, atol=1e-12)
        assert len(set(rows)) == len(rows) > 50
        for row, image in zip(rows, ax.images, strict=True):
            np.testing.assert_allclose(image.get_array()[..., 0], np.rint(images[row] * 255))
            assert image.origin == "upper"
        dots = ax.collections[0].get_offsets().data
        expected = np.delete(embedding, rows, axis=0)
        np.testing.assert_array_equal(np.sort(dots, axis=0), np.sort(expected, axis=0))
        assert ax.collections[0].get_zorder() < ax.images[0].get_zorder()
        assert ax.collections[0].get_facecolors()[:, 3].max() <= 0.3

    @pytest.mark.parametrize("kind", ["classes", "numbers", "missing"])
    def test_frames_and_legend_have_the_colours_of_scatter(self, digits, embedding, kind):
        images, y = digits
        labels = {"classes": y, "numbers": embedding[:, 0], "missing": np.where(y == 1, None, "a")}[kind]
        ax, plain = thumbnails(embedding, images, labels), scatter(embedding, labels)
        colors = plain.collections[0].get_facecolors()[:, :3]
        points = plain.collections[0].get_offsets().data
        frames = ax.collections[1]
        for path, color in zip(frames.get_paths(), frames.get_edgecolors(), strict=True):
            center = path.vertices[:4].mean(axis=0)
            nearest = np.abs(points - center).max(axis=1).argmin()
            np.testing.assert_allclose(color[:3], colors[nearest])
        legends = [owner.get_legend() for owner in (ax, plain)]
        texts = [legend and [text.get_text() for text in legend.get_texts()] for legend in legends]
        assert texts[0] == texts[1]
        assert len(ax.figure.axes) == len(plain.figure.axes)

    def test_the_choice_is_the_same_on_every_call(self, digits, embedding):
        first, second = (thumbnails(embedding, digits[0], max_images=50) for _ in range(2))
        np.testing.assert_array_equal(boxes_of(first), boxes_of(second))

    def test_one_unit_is_as_long_across_as_up_and_every_image_in_view(self, digits, embedding):
        ax = thumbnails(embedding * [5, 1], digits[0], title="map")
        save(ax.figure)
        assert ax.get_title() == "map"
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y1 - y0)
        left, right, bottom, top = boxes_of(ax).T
        assert ax.get_xlim()[0] <= left.min() < right.max() <= ax.get_xlim()[1]
        assert ax.get_ylim()[0] <= bottom.min() < top.max() <= ax.get_ylim()[1]

    def test_equal_points_and_a_single_point_get_one_image(self, digits):
        for n in (1, 7):
            ax = thumbnails(np.ones((n, 2)), digits[0][:n])
            save(ax.figure)
            assert len(ax.images) == 1

    def test_it_draws_on_an_axes_of_ones_own(self, digits, embedding):
        ax = scatter(embedding)
        assert thumbnails(embedding, torch.tensor(digits[0]), digits[1], ax=ax, legend="none") is ax
        assert ax.get_legend() is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"images": np.zeros((4, 8, 8))}, r"images has shape \(4, 8, 8\), embedding has 5 rows; pass one image"),
            ({"images": np.zeros((5, 3, 8, 8))}, r"images has shape .* np\.moveaxis\(images, -3, -1\)"),
            ({"images": np.full((5, 8, 8), 16.0)}, "images holds floats from 16 to 16; scale them to"),
            ({"embedding": np.zeros((5, 3))}, r"embedding has shape \(5, 3\) and a plot needs \(n, 2\)"),
            ({"labels": [1]}, r"labels has shape \(1,\), embedding has 5 rows"),
            ({"size": 0.0}, "size=0.0 is a share of the embedding's longer side; pass 0.001 to 1"),
            ({"max_images": 0}, "max_images=0 must be at least 1"),
            ({"legend": "left"}, "legend='left' is not known"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            thumbnails(**{"embedding": np.eye(5, 2), "images": np.zeros((5, 8, 8))} | options)


def test_matplotlib_loads_on_the_first_call_and_pyplot_never():
    code = (
        "import io, sys, numpy as np; from torchdr_cne.plotting import class_similarity, retrieval, thumbnails\n"
        "assert not {'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "images = np.random.default_rng(0).random((20, 4, 4))\n"
        "class_similarity(images[:, 0], np.arange(20) % 2).savefig(io.BytesIO())\n"
        "retrieval(images[:2], images.reshape(2, 10, 4, 4)).savefig(io.BytesIO())\n"
        "thumbnails(images[:, 0, :2], images, np.arange(20) % 3).figure.savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
