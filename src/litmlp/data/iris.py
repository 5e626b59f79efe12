"""Fisher's irises, included in scikit-learn."""

import torch

from .in_memory import Samples, UndividedData


class Iris(UndividedData):
    """150 flowers, four lengths in cm, three species (R. A. Fisher, 1936)."""

    sample_shape = (4,)
    num_outputs = 3
    feature_names = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
    class_names = ("setosa", "versicolor", "virginica")

    def load_all(self) -> Samples:
        from sklearn.datasets import load_iris

        features, labels = load_iris(return_X_y=True)
        return Samples(torch.from_numpy(features).float(), torch.from_numpy(labels).long())
