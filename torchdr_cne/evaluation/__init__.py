"""How well an embedding keeps neighbours, classes and distances, by exact search in NumPy.

Nothing here uses the searches, graphs or losses of the rest of the package: what judges an embedding is
independent of what made it. In names of arrays: n points, r sampled rows, k neighbours.
"""

from torchdr_cne.evaluation.distances import distance_correlation
from torchdr_cne.evaluation.neighborhoods import knn_accuracy, knn_recall, trustworthiness
from torchdr_cne.evaluation.scores import evaluate

__all__ = ["distance_correlation", "evaluate", "knn_accuracy", "knn_recall", "trustworthiness"]
