"""A few labels beside many rows without: what they are worth on rows never seen."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from torchdr_cne import UMAP
from torchdr_cne.parametric import Classification

X, Y = load_digits(return_X_y=True)
SEEDS = range(3)


def split_with_labels(seed, share):
    """Rows to fit, to hold out, and the labels of a share of the former, −1 for the others."""
    rows, held_out, labels, wanted = train_test_split(X, Y, test_size=0.2, random_state=seed, stratify=Y)
    known = np.random.default_rng(seed).choice(len(rows), round(share * len(rows)), replace=False)
    given = np.full(len(rows), -1)
    given[known] = labels[known]
    return rows, held_out, given, wanted


def held_out_accuracy(seed, extra_loss):
    rows, held_out, labels, wanted = split_with_labels(seed, share=0.05)
    estimator = UMAP(encoder="mlp", extra_loss=extra_loss, target_weight=0, max_iter=400, random_state=seed)
    embedding = estimator.fit(rows, labels).embedding_
    known = labels >= 0
    return KNeighborsClassifier(3).fit(embedding[known], labels[known]).score(estimator.transform(held_out), wanted)


def test_five_percent_of_labels_raise_the_accuracy_on_rows_never_seen():
    without = [held_out_accuracy(seed, None) for seed in SEEDS]
    beside = [held_out_accuracy(seed, 1.0 * Classification()) for seed in SEEDS]
    assert np.mean(beside) > np.mean(without) + 0.01
