"""What the ranks do in test_encoders.py; the tests do the same in one process and compare."""

import torch

import torchdr_cne
from tests.distributed.cases import digits, labels, make, world
from tests.helpers import interrupt_at
from torchdr_cne.networks.objective import NetworkObjective
from torchdr_cne.parametric import Classification, LearnedMap, Phase, Position, PositivePairs, Relation


def own_module(seed):
    """Return a network with normalisation and dropout, and first weights of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(64, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Dropout(0.1)
        return torch.nn.Sequential(*layers, torch.nn.Linear(32, 2))


def described(estimator, name):
    """Return the embedding, what transform makes of the rows, and all numbers of the encoder."""
    state = {f"{name} {key}": value.numpy() for key, value in estimator.encoder_.state_dict().items()}
    return {f"{name} embedding": estimator.embedding_, f"{name} placed": estimator.transform(digits()), **state}


def encoders(folder):
    """Fit encoders that the ranks share, and one that is rank 0's alone."""
    X, rank = digits(), world()[0]
    found = described(make("NegTSNE", encoder="mlp", decoder="mlp", max_iter=120, batch_size=256).fit(X), "mlp")
    common = {"max_iter": 40, "batch_size": 128}
    found |= described(make("NCVis", encoder=own_module(rank), **common).fit(X), "own")
    steps = {"checkpoint_dir": folder, "checkpoint_every": 10, "callbacks": interrupt_at(25)}
    make("NCVis", encoder=own_module(0), **common, **steps).fit(X)
    steps["callbacks"] = interrupt_at(0)
    found |= described(make("NCVis", encoder=own_module(0), **common, **steps).fit(X), "resumed")
    few = {"random_state": 0, "distributed": world()[1] > 1, "batch_size": 256}
    parametric = torchdr_cne.ParametricTSNE(pretrain_iter=100, max_iter=60, extra_loss=Classification(), **few)
    found |= described(parametric.fit(X, labels()), "parametric")
    spectral = LearnedMap(phases=[Phase(60, Position("spectral") + Relation("umap"))], **few)
    found |= described(spectral.fit(X), "spectral")
    pairs = PositivePairs([(torch.from_numpy(X[:900]), torch.from_numpy(X[:900]) + 1)])
    found |= described(make("UMAP", encoder="mlp", max_iter=10).fit(pairs), "pairs")
    found |= described(own_pairs(rank), "own pairs")
    del found["own pairs embedding"]  # that of the rank's own rows
    images = (X.reshape(-1, 8, 8) * 15).astype("uint8")
    of_images = torchdr_cne.TSimCNE(backbone="small", total_epochs=[1, 1, 1], lr=[0.1, 0.1, 0.01], **few).fit(images)
    found |= {f"images {key}": value.numpy() for key, value in of_images.encoder_.state_dict().items()}
    found |= {"images embedding": of_images.embedding_, "images placed": of_images.transform(images)}
    for name, module in (("alone", "mlp"), ("own alone", own_module(rank))):
        alone = make("InfoTSNE", encoder=module, max_iter=20).set_params(distributed="auto").fit(X)
        found |= described(alone, name)
    return found


def own_pairs(rank):
    """Fit an encoder to pairs that each rank loads for itself: of the first 900 digits, or of the others."""
    rows = torch.from_numpy(digits()[rank * 900 : rank * 900 + 800])
    return make("UMAP", encoder="mlp", max_iter=10).fit(PositivePairs([(rows, rows + 1)]))


def first_gradient(ranks_draws=()):
    """Return the first step's mini-batch and gradient; or, of each of the given mini-batches, the gradient."""
    found, compute = {}, NetworkObjective.compute_gradients

    def flat(objective):
        return torch.cat([value.grad.flatten() for value in objective.parameters.values()]).numpy()

    def compute_and_keep(self, state):
        draw = self._batches.draw
        for rank, of_rank in enumerate(ranks_draws):
            self._batches.draw = lambda step, of_rank=of_rank: of_rank
            compute(self, state)
            found[f"gradient {rank}"] = flat(self)
        self._batches.draw = draw
        compute(self, state)
        found["gradient"] = flat(self)
        found.update({f"draw {name}": value.numpy() for name, value in vars(draw(0)).items() if name != "graph"})

    NetworkObjective.compute_gradients = compute_and_keep
    try:
        make("NegTSNE", encoder="mlp", max_iter=1, batch_size=256, dtype="float64").fit(digits())
    finally:
        NetworkObjective.compute_gradients = compute
    return found
