"""Metrics of how well an embedding keeps neighbours, classes and distances, and how well features separate classes.

Nothing here uses the searches, graphs or losses of the rest of the package, so that the evaluation of an embedding is
independent of the code that made it. Neighbours are found by exact search in NumPy. In names of arrays there are
n points, r sampled rows, k neighbours, f features and c classes.
"""

from torchdr_cne.evaluation.distances import distance_correlation
from torchdr_cne.evaluation.neighborhoods import knn_accuracy, knn_recall, trustworthiness
from torchdr_cne.evaluation.probe import linear_probe
from torchdr_cne.evaluation.scores import evaluate
from torchdr_cne.evaluation.similarity import class_similarity_matrix

__all__ = [
    "class_similarity_matrix",
    "distance_correlation",
    "evaluate",
    "knn_accuracy",
    "knn_recall",
    "linear_probe",
    "trustworthiness",
]
