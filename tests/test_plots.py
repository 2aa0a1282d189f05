"""What the plots draw: pixels, colours, texts, and labels of the axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mnist_deploy.plots import (
    plot_comparison,
    plot_confusion_matrix,
    plot_misclassified,
    plot_predictions,
)

COUNTS = np.array([[8, 2, 0], [0, 0, 0], [5, 5, 10]])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def digits(sample_data):
    """Fifty images with their labels, and predictions of which 10, 20 and 30 are wrong."""
    _, _, images, labels = sample_data
    predictions = labels[:50].copy()
    predictions[[10, 20, 30]] = (predictions[[10, 20, 30]] + 1) % 10
    return images[:50], labels[:50], predictions


def drawn(ax) -> np.ndarray:
    (image,) = ax.images
    return np.asarray(image.get_array())


def brightness(ax) -> np.ndarray:
    """The displayed grey values of an image, 0 black to 1 white."""
    (image,) = ax.images
    return image.cmap(image.norm(image.get_array()))[..., :3].mean(axis=-1)


def is_red(ax) -> bool:
    return to_rgb(ax.title.get_color()) == to_rgb("red")


class TestConfusionMatrix:
    def test_cells_are_shares_of_the_true_class_without_the_diagonal(self):
        """True classes are rows, predicted classes columns; the colour bar has a label."""
        before = COUNTS.copy()
        ax = plot_confusion_matrix(COUNTS)
        np.testing.assert_allclose(drawn(ax), [[0, 0.2, 0], [0, 0, 0], [0.25, 0.25, 0]])
        assert (before == COUNTS).all()
        assert (ax.get_ylabel(), ax.get_xlabel()) == ("true", "predicted")
        assert ax.images[0].origin == "upper"
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2"]
        seen = brightness(ax)
        assert seen[2, 0] == seen.max() == 1
        assert seen[0, 0] == seen[1, 1] == 0
        _, bar = ax.figure.axes
        assert bar.get_ylabel() == "share of the true class"
        ax.figure.canvas.draw()
        assert "20%" in [tick.get_text() for tick in bar.get_yticklabels()]

    def test_given_axes_are_used_without_another_figure(self):
        figure, (_, right) = plt.subplots(1, 2)
        assert plot_confusion_matrix(COUNTS, ax=right) is right
        assert plt.get_fignums() == [figure.number]

    def test_path_saves_the_whole_figure_of_a_subfigure(self, tmp_path):
        path = tmp_path / "outputs" / "conf.png"
        left, right = plt.figure(figsize=(8, 4)).subfigures(1, 2)
        plot_confusion_matrix(COUNTS, ax=left.subplots())
        plot_confusion_matrix(COUNTS, ax=right.subplots(), path=path)
        height, width, _ = plt.imread(path).shape
        assert width > 1.7 * height

    def test_many_classes_have_fewer_ticks(self):
        ax = plot_confusion_matrix(np.ones((200, 200), int))
        assert drawn(ax).shape == (200, 200)
        assert 4 < len(ax.get_xticks()) < 15
        assert (brightness(plot_confusion_matrix(np.diag([3, 4]))) == 0).all()

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (np.ones((2, 3)), r"square; this one has the shape \(2, 3\)"),
            (np.ones(4), "square"),
            (np.ones((0, 0)), "square"),
            ([[1, -1], [0, 2]], "negative"),
            ([[1, np.nan], [0, 2]], "NaN"),
        ],
    )
    def test_other_input_is_rejected(self, matrix, message):
        with pytest.raises(ValueError, match=message):
            plot_confusion_matrix(matrix)
        assert plt.get_fignums() == []


class TestComparison:
    def test_equal_matrices_are_titled_no_difference(self):
        titles = [ax.get_title() for ax in plot_comparison(COUNTS, COUNTS).axes if ax.images]
        assert titles == ["local: accuracy 0.6000", "deployed: accuracy 0.6000", "no difference"]

    def test_difference_is_counted_in_its_cells_on_one_scale(self):
        deployed = COUNTS.copy()
        deployed[0] += [-3, 3, 0]
        figure = plot_comparison(COUNTS, deployed, names=("blue", "green"))
        local_ax, deployed_ax, difference_ax = (ax for ax in figure.axes if ax.get_title())
        assert local_ax.images[0].get_clim() == deployed_ax.images[0].get_clim() == (0, 0.5)
        texts = {text.get_position(): text.get_text() for text in difference_ax.texts}
        assert texts == {(0, 0): "-3", (1, 0): "+3"}
        assert difference_ax.get_title() == "green minus blue"
        assert (drawn(difference_ax) == deployed - COUNTS).all()
        with pytest.raises(ValueError, match=r"\(3, 3\) and \(2, 2\)"):
            plot_comparison(COUNTS, np.eye(2))


class TestPredictions:
    def test_thirty_different_samples_are_titled_with_their_predictions(self, digits):
        images, _, predictions = digits
        figure = plot_predictions(*digits, rng=1)
        assert len(figure.axes) == 30
        assert {ax.get_subplotspec().rowspan.start for ax in figure.axes} == {0}
        assert figure.get_size_inches().tolist() == [20, 1]
        place = {image.tobytes(): i for i, image in enumerate(images.reshape(-1, 28, 28))}
        chosen = [place[drawn(ax).tobytes()] for ax in figure.axes]
        assert len(set(chosen)) == 30
        assert [ax.get_title() for ax in figure.axes] == [str(predictions[i]) for i in chosen]

    def test_wrong_samples_are_red_and_inverted(self, digits):
        """All fifty samples are drawn, without ticks and lines."""
        axes = plot_predictions(*digits, n=99).axes
        wrong = [brightness(ax) for ax in axes if is_red(ax)]
        right = [brightness(ax) for ax in axes if not is_red(ax)]
        assert (len(wrong), len(right)) == (3, 47)
        assert {(seen[0, 0], seen.max()) for seen in wrong} == {(0, 1)}
        assert {(seen[0, 0], seen.min()) for seen in right} == {(1, 0)}
        assert not any(ax.axison or ax.lines for ax in axes)

    def test_rng_reproduces_the_choice(self, digits):
        def choice(rng):
            axes = plot_predictions(*digits, n=6, rng=rng).axes
            return b"".join(drawn(ax).tobytes() for ax in axes)

        assert choice(7) == choice(7) == choice(np.random.default_rng(7))
        assert choice(7) != choice(8)
        assert choice(None) != choice(None)

    def test_shape_and_dtype_of_images_do_not_change_the_plot(self, digits):
        images, labels, predictions = digits
        flat = plot_predictions(*digits, n=9, rng=0)
        squares = (images.reshape(-1, 28, 28) * 255).astype(np.uint8)
        square = plot_predictions(squares, labels[:, None], predictions[:, None], n=9, rng=0)
        for one, other in zip(flat.axes, square.axes, strict=True):
            np.testing.assert_allclose(brightness(one), brightness(other), atol=0.01)
            assert one.get_title() == other.get_title()
        assert drawn(plot_predictions(np.eye(9), range(9), range(9)).axes[0]).shape == (3, 3)
        assert len(plot_predictions(np.zeros((1, 8, 8)), [1], [1]).axes) == 1

    @pytest.mark.parametrize(
        ("images", "labels", "predictions", "n", "message"),
        [
            (np.eye(4), [0, 1, 2], [0, 1, 2, 3], 30, "4 images, 3 labels, 4 predictions"),
            (np.eye(4), range(4), range(4), 0, "n=0"),
            (np.ones((0, 784)), [], [], 30, "0 images"),
            (np.ones((2, 785)), [1, 2], [1, 2], 30, r"shape \(2, 785\)"),
            (np.ones((2, 14, 56)), [1, 2], [1, 2], 30, r"shape \(2, 14, 56\)"),
        ],
    )
    def test_inconsistent_input_is_rejected(self, images, labels, predictions, n, message):
        with pytest.raises(ValueError, match=message):
            plot_predictions(images, labels, predictions, n=n)


class TestMisclassified:
    @pytest.mark.parametrize("n", [2, 10])
    def test_wrong_samples_are_ordered_by_confidence(self, digits, n):
        images, labels, predictions = digits
        confidence = np.full(50, 0.999)
        confidence[[10, 20, 30]] = [0.5, 0.99, 0.6]
        figure = plot_misclassified(images, labels, predictions, confidence, n=n)
        titles = [
            f"{labels[i]} taken for {predictions[i]}\n{sure}% sure"
            for i, sure in [(20, "99.0"), (30, "60.0"), (10, "50.0")]
        ]
        assert [ax.get_title() for ax in figure.axes] == titles[:n]
        assert (drawn(figure.axes[0]) == images[20].reshape(28, 28)).all()
        assert figure.get_suptitle() == f"{min(n, 3)} of 3 wrong among 50 samples"

    def test_text_is_drawn_if_nothing_is_wrong(self, digits):
        images, labels, _ = digits
        figure = plot_misclassified(images, labels, labels, np.ones(50))
        assert [text.get_text() for text in figure.texts] == ["None of 50 samples is wrong."]
        assert figure.axes == []

    @pytest.mark.parametrize("confidence", [np.ones(49), np.full(50, 1.5), np.full(50, np.nan)])
    def test_invalid_confidence_is_rejected(self, digits, confidence):
        with pytest.raises(ValueError, match="expected 50 in"):
            plot_misclassified(*digits, confidence)
