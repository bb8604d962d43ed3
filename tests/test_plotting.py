import io
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from torchdr_cne.plotting import panels, scatter
from torchdr_cne.plotting._palette import MISSING, _oklab, class_colors
from torchdr_cne.plotting._scatter import default_alpha, default_point_size


@pytest.fixture(scope="module")
def embedding():
    return np.random.default_rng(0).normal(size=(300, 2))


def colors_in_row_order(ax, embedding):
    """RGB of each row's point, found by its place."""
    drawn = {tuple(xy): rgba[:3] for xy, rgba in zip(*point_data(ax), strict=True)}
    return np.array([drawn[tuple(xy)] for xy in embedding])


def point_data(ax):
    return ax.collections[0].get_offsets().data, ax.collections[0].get_facecolors()


def legend_of(owner):
    legend = owner.get_legend() if hasattr(owner, "get_legend") else owner.legends[0]
    markers = [handle.get_color() for handle in legend.legend_handles]
    return dict(zip([text.get_text() for text in legend.get_texts()], markers, strict=True))


CLASS_LABELS = {
    "int": np.arange(300) % 4,
    "str": np.array(["b", "a", "d", "c"])[np.arange(300) % 4],
    "bool": np.arange(300) % 2 == 0,
    "tensor": torch.arange(300) % 4,
    "categorical": pd.Series(pd.Categorical(np.array(["b", "a"])[np.arange(300) % 2], categories=["b", "a"])),
    "pandas strings": pd.Series(np.array(["x", "y", "z"])[np.arange(300) % 3]),
}


class TestClasses:
    @pytest.mark.parametrize("kind", CLASS_LABELS)
    def test_points_have_the_colour_that_the_legend_gives_their_label(self, embedding, kind):
        labels = CLASS_LABELS[kind]
        ax = scatter(embedding, labels)
        key = legend_of(ax)
        values = labels.tolist()
        assert set(key) == {str(label) for label in values}
        expected = [key[str(label)][:3] for label in values]
        np.testing.assert_allclose(colors_in_row_order(ax, embedding), expected, atol=1e-12)

    def test_legend_follows_the_order_of_a_categorical_and_of_sorted_numbers(self, embedding):
        assert list(legend_of(scatter(embedding, CLASS_LABELS["categorical"]))) == ["b", "a"]
        assert list(legend_of(scatter(embedding, np.arange(300) % 12)))[-2:] == ["10", "11"]

    def test_legend_markers_are_opaque_and_large_when_points_are_not(self, embedding):
        ax = scatter(embedding, CLASS_LABELS["int"], alpha=0.05, point_size=0.01)
        for handle in ax.get_legend().legend_handles:
            assert handle.get_alpha() is None
            assert handle.get_color()[3] == 1.0
            assert handle.get_markersize() >= 5

    @pytest.mark.parametrize(
        "labels",
        [
            [None, "a", np.nan] * 100,
            pd.Categorical([None, "a", None] * 100),
            pd.Series([pd.NA, 1, pd.NA] * 100, dtype="Int64"),
        ],
        ids=["object", "categorical", "nullable"],
    )
    def test_missing_labels_are_grey_below_the_rest_and_in_the_legend(self, embedding, labels):
        labels = np.array(labels, dtype=object) if isinstance(labels, list) else labels
        ax = scatter(embedding, labels)
        assert legend_of(ax)["no label"] == MISSING
        is_grey = (colors_in_row_order(ax, embedding) == MISSING[:3]).all(axis=1)
        np.testing.assert_array_equal(is_grey, np.arange(300) % 3 != 1)
        drawn_grey = (point_data(ax)[1][:, :3] == MISSING[:3]).all(axis=1)
        assert drawn_grey[:200].all()

    def test_names_replace_numbers_and_are_shown_literally(self, embedding):
        names = ["_neurons", "a $b", "c $x^2$", "n" * 60]
        key = legend_of(scatter(embedding, CLASS_LABELS["int"], names=names))
        assert list(key)[:3] == names[:3]
        assert list(key)[3].startswith("nnn")
        assert len(list(key)[3]) < 30
        assert list(legend_of(scatter(embedding, CLASS_LABELS["bool"], names={True: "in", False: "out"}))) == [
            "out",
            "in",
        ]

    def test_of_too_many_classes_the_legend_lists_the_largest(self, embedding):
        labels = np.array([f"rare {i}" for i in range(200)] + ["big"] * 60 + ["large"] * 40)
        key = list(legend_of(scatter(embedding, labels, max_categories=5)))
        assert len(key) == 6
        assert {"big", "large"} < set(key)
        assert key[-1] == "… and 197 more"

    def test_colours_of_25_classes_are_apart_from_each_other_and_from_grey(self):
        colors = np.vstack([class_colors(25)[:, :3], [MISSING[:3]], [(1.0, 1.0, 1.0)]])
        lab = _oklab(colors)
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.eye(len(lab))
        assert distances.min() > 0.1  # one just noticeable difference is about 0.02

    def test_a_class_keeps_its_colour_when_classes_are_added(self):
        np.testing.assert_array_equal(class_colors(30)[:12], class_colors(12))

    def test_cmap_of_few_colours_is_taken_in_its_order(self):
        np.testing.assert_allclose(class_colors(9, "Set1"), matplotlib.colormaps["Set1"](range(9)))
        np.testing.assert_allclose(class_colors(2, "viridis"), matplotlib.colormaps["viridis"]([0.0, 1.0]))


class TestNumbers:
    @pytest.mark.parametrize("scale", [1.0, 1000], ids=["float", "many ints"])
    def test_points_follow_the_colour_map_and_the_colour_bar_spans_the_values(self, embedding, scale):
        values = (embedding[:, 0] * scale).astype(type(scale))
        ax = scatter(embedding, values, cmap="plasma")
        share = (values - values.min()) / (values.max() - values.min())
        expected = matplotlib.colormaps["plasma"](share)[:, :3]
        np.testing.assert_allclose(colors_in_row_order(ax, embedding), expected, atol=0.02)
        bar = ax.figure.axes[1]
        assert bar.get_ylim() == pytest.approx((values.min(), values.max()))
        assert ax.get_legend() is None

    def test_nan_is_grey_and_does_not_move_the_scale(self, embedding):
        values = embedding[:, 0].copy()
        values[[5, 9]] = np.nan, np.inf
        ax = scatter(embedding, values)
        colors = colors_in_row_order(ax, embedding)
        np.testing.assert_allclose(colors[[5, 9]], [MISSING[:3]] * 2)
        assert ax.figure.axes[1].get_ylim()[1] == pytest.approx(np.delete(values, [5, 9]).max())
        assert list(legend_of(ax)) == ["no label"]


class TestPoints:
    def test_size_and_opacity_fall_with_the_number_of_points(self):
        numbers = [500, 5_000, 70_000, 1_000_000]
        sizes, alphas = [default_point_size(n) for n in numbers], [default_alpha(n) for n in numbers]
        assert sizes == sorted(sizes, reverse=True)
        assert alphas == sorted(alphas, reverse=True)
        assert len(set(sizes)) == len(set(alphas)) == 4
        assert sizes[0] > 5
        assert 0.1 < sizes[-1] < 0.2
        assert 0.3 < alphas[-1] < alphas[0] == 0.9

    def test_defaults_are_used_and_can_be_overridden(self, embedding):
        ax = scatter(embedding)
        assert ax.collections[0].get_sizes() == [pytest.approx(default_point_size(300))]
        assert point_data(ax)[1][0, 3] == default_alpha(300)
        ax = scatter(embedding, point_size=3.5, alpha=0.25)
        assert ax.collections[0].get_sizes() == [3.5]
        assert point_data(ax)[1][0, 3] == 0.25

    def test_points_on_a_smaller_axes_are_smaller_by_its_area(self, embedding):
        figure = Figure(figsize=(10, 10))
        large, small = figure.add_axes((0, 0, 0.5, 0.5)), figure.add_axes((0.5, 0.5, 0.25, 0.25))
        sizes = [scatter(embedding, ax=ax).collections[0].get_sizes()[0] for ax in (large, small)]
        assert sizes == pytest.approx([default_point_size(300), default_point_size(300) / 4])

    def test_every_point_is_drawn_once_in_an_order_free_of_the_labels(self):
        embedding = np.c_[np.arange(2000.0), np.zeros(2000)]
        labels = np.repeat([0, 1], 1000)
        rows = point_data(scatter(embedding, labels))[0][:, 0].astype(int)
        np.testing.assert_array_equal(np.sort(rows), np.arange(2000))
        assert 0.45 < labels[rows][:1000].mean() < 0.55
        np.testing.assert_array_equal(rows, point_data(scatter(embedding, labels))[0][:, 0])

    def test_one_unit_is_as_long_across_as_up(self):
        ax = scatter(np.random.default_rng(0).normal(size=(50, 2)) * [10, 1])
        ax.figure.draw_without_rendering()
        (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
        assert x1 - x0 == pytest.approx(y1 - y0)
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0

    def test_many_points_are_an_image_in_vector_files(self, embedding):
        many = np.random.default_rng(0).normal(size=(6000, 2))
        assert scatter(many).collections[0].get_rasterized()
        assert not scatter(many, rasterized=False).collections[0].get_rasterized()
        assert not scatter(embedding).collections[0].get_rasterized()

    def test_a_tensor_is_drawn_where_its_array_is(self, embedding):
        tensor = torch.tensor(embedding, requires_grad=True)
        np.testing.assert_array_equal(point_data(scatter(tensor))[0], point_data(scatter(embedding))[0])


class TestPlaceOfLegend:
    @pytest.mark.parametrize(("legend", "is_inside"), [("auto", False), ("outside", False), ("inside", True)])
    def test_legend_lies_on_the_figure_and_off_the_points_unless_inside(self, embedding, legend, is_inside):
        ax = scatter(embedding, np.arange(300) % 23, legend=legend)
        ax.figure.draw_without_rendering()
        legend_box, axes_box = ax.get_legend().get_window_extent(), ax.get_window_extent()
        assert (legend_box.x0 < axes_box.x1) == is_inside
        assert legend_box.x1 <= ax.figure.bbox.x1
        assert axes_box.width > 0.7 * axes_box.height

    def test_none_draws_neither_legend_nor_colour_bar(self, embedding):
        assert scatter(embedding, CLASS_LABELS["int"], legend="none").get_legend() is None
        assert len(scatter(embedding, embedding[:, 0], legend="none").figure.axes) == 1

    def test_axes_that_share_both_scales_can_be_drawn(self, embedding):
        figure = Figure()
        for ax in figure.subplots(1, 2, sharex=True, sharey=True):
            assert scatter(embedding, CLASS_LABELS["int"], ax=ax, title="t", legend="inside") is ax
        figure.draw_without_rendering()
        assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


class TestPanels:
    def test_panels_hold_their_embeddings_under_their_titles_with_one_legend(self, embedding):
        maps = {name: embedding * factor for factor, name in enumerate("abcde", start=1)}
        figure = panels(maps, CLASS_LABELS["int"], columns=3)
        assert [ax.get_title() for ax in figure.axes] == list("abcde")
        assert list(legend_of(figure)) == ["0", "1", "2", "3"]
        key = [legend_of(figure)[str(label)][:3] for label in CLASS_LABELS["int"]]
        for ax, points in zip(figure.axes, maps.values(), strict=True):
            assert ax.get_legend() is None
            np.testing.assert_allclose(colors_in_row_order(ax, points), key, atol=1e-12)
        rows = {ax.get_subplotspec().rowspan.start for ax in figure.axes}
        assert rows == {0, 1}

    def test_numbers_get_one_colour_bar(self, embedding):
        figure = panels({"a": embedding, "b": embedding}, embedding[:, 0])
        assert len(figure.axes) == 3

    def test_embeddings_of_different_length_are_refused(self, embedding):
        with pytest.raises(ValueError, match=r"different numbers of rows, \{'a': 300, 'b': 299\}"):
            panels({"a": embedding, "b": embedding[1:]})

    def test_no_embedding_is_refused(self):
        with pytest.raises(ValueError, match="got 0 embeddings"):
            panels({})


class TestErrors:
    @pytest.mark.parametrize(
        ("points", "message"),
        [
            (np.zeros((5, 3)), r"shape \(5, 3\) and a plot needs \(n, 2\).*embedding\[:, :2\]"),
            (np.zeros((5, 1)), r"shape \(5, 1\) and a plot needs \(n, 2\)"),
            (np.zeros(5), r"shape \(5,\); pass a 2-D array"),
            (np.zeros((0, 2)), "with n ≥ 1"),
            (np.full((5, 2), np.nan), "NaN or infinite values in 5 rows"),
        ],
    )
    def test_embeddings_that_are_no_map_are_refused(self, points, message):
        with pytest.raises(ValueError, match=message):
            scatter(points)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": [1, 2]}, r"labels has shape \(2,\), embedding has 300 rows; pass one label a row"),
            ({"labels": np.zeros(300, dtype="M8[s]")}, "cannot be coloured; pass strings or numbers"),
            (
                {"labels": np.arange(300) % 4, "names": ["a"]},
                "names has 1 entries and does not name every one",
            ),
            ({"legend": "left"}, "legend='left' is not known; choose one of auto, outside, inside, none"),
        ],
    )
    def test_options_that_do_not_fit_are_refused(self, embedding, options, message):
        with pytest.raises(ValueError, match=message):
            scatter(embedding, **options)


class TestGlobalState:
    def test_settings_are_untouched(self, embedding):
        before = dict(matplotlib.rcParams)
        np.random.seed(3)  # noqa: NPY002
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        file = io.BytesIO()
        scatter(embedding, CLASS_LABELS["int"]).figure.savefig(file, format="png")
        assert file.getvalue()[:4] == b"\x89PNG"
        assert dict(matplotlib.rcParams) == before
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_matplotlib_loads_on_the_first_call_and_pyplot_never(self):
        code = (
            "import io, sys, numpy as np; from torchdr_cne.plotting import panels, scatter\n"
            "assert 'matplotlib' not in sys.modules\n"
            "points = np.random.default_rng(0).normal(size=(20, 2))\n"
            "scatter(points, points[:, 0]).figure.savefig(io.BytesIO())\n"
            "panels({'a': points, 'b': points}, np.arange(20) % 3).savefig(io.BytesIO())\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
