"""One table of names: for the top level, relations, saved files and docstrings."""

import dataclasses
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

import torchdr_cne
from torchdr_cne import LargeVis, LearnedMap, NegTSNE, Phase, catalogue, load
from torchdr_cne.parametric import Relation
from torchdr_cne.storage import from_plain, to_plain

X = load_digits().data[:120]
ESTIMATORS = sorted(name for name, entry in catalogue.public().items() if hasattr(entry.load(), "fit"))
CONCRETE = [name for name in ESTIMATORS if not getattr(getattr(torchdr_cne, name), "__abstractmethods__", None)]


class Sharper(NegTSNE):
    """NegTSNE with less noise."""

    nu: float | None = 0.2


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(catalogue, "_registered", {})
    monkeypatch.setattr(catalogue, "_registered_classes", {})
    return catalogue.register(Sharper, command="sharper")


@pytest.mark.parametrize("entry", list(catalogue.entries()), ids=lambda entry: entry.name)
def test_every_entry_names_a_class_that_is_there(entry):
    assert entry.load().__name__ == entry.name
    assert catalogue.stored_name(entry.load()) == entry.name


def test_a_registered_method_is_a_relation_by_its_name(registered):
    parameters = {"phases": [Phase(5, Relation("sharper"))], "random_state": 0}
    by_name = LearnedMap(**parameters).fit_transform(X)
    parameters["phases"] = [Phase(5, Relation(Sharper()))]
    np.testing.assert_array_equal(by_name, LearnedMap(**parameters).fit_transform(X))


def test_before_it_is_registered_the_name_is_unknown():
    with pytest.raises(ValueError, match="Relation\\(loss='sharper'\\) is unknown; choose one of"):
        Relation("sharper")


def test_a_registered_method_loads_without_being_passed(registered, tmp_path):
    fitted = Sharper(max_iter=5, random_state=0).fit(X)
    fitted.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").embedding_, fitted.embedding_)


def test_a_class_of_ones_own_is_passed_by_name_or_as_it_is(tmp_path):
    fitted = Sharper(max_iter=5, random_state=0).fit(X)
    fitted.save(tmp_path / "model")
    for classes in ([Sharper], {"Sharper": Sharper}):
        assert type(load(tmp_path / "model", classes=classes)) is Sharper
    with pytest.raises(ValueError, match="Sharper is not one of torchdr_cne's; import it and pass classes="):
        load(tmp_path / "model")


def test_a_name_that_is_taken_is_refused(registered):
    with pytest.raises(ValueError, match="umap is the name of UMAP already; choose another"):
        catalogue.register(type("Other", (NegTSNE,), {}), command="umap")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_docstring_shows_every_parameter_and_no_other(name):
    cls = getattr(torchdr_cne, name)
    section = re.split(r"\n\w+\n-{3,}\n", cls.__doc__.partition("Parameters\n----------\n")[2])[0]
    shown = [part for header in re.findall(r"^(\w[\w, ]*) : ", section, re.MULTILINE) for part in header.split(", ")]
    assert sorted(shown) == sorted(field.name for field in dataclasses.fields(cls))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_defaults_that_a_docstring_shows_are_those_of_the_class(name):
    cls = getattr(torchdr_cne, name)
    for field in dataclasses.fields(cls):
        header = re.search(rf"^{field.name} : .*default=(.*)$", cls.__doc__, re.MULTILINE)
        if header is not None and isinstance(field.default, int | float | str | None):
            assert header[1] == repr(field.default).replace("'", '"'), field.name


def test_a_parameter_that_is_stated_again_is_inherited_again():
    class Counted(LargeVis):
        n_neighbors: int = 12

    class Further(Counted):
        pass

    assert "n_neighbors" not in LargeVis().get_params()
    assert Further().get_params()["n_neighbors"] == 12


@pytest.mark.parametrize("name", CONCRETE)
def test_a_file_that_names_parameters_given_up_since_is_read(name):
    cls = getattr(torchdr_cne, name)
    given_up = cls._former_parameters
    assert not set(given_up) & {field.name for field in dataclasses.fields(cls)}
    plain = to_plain(cls(), name, {})
    plain["parameters"] |= given_up
    assert from_plain(plain, {}).get_params(deep=False).keys() == cls().get_params(deep=False).keys()
    for parameter in given_up:
        plain["parameters"][parameter] = "another"
        with pytest.raises(ValueError, match=f"{name} was saved with {parameter}='another', a parameter that this"):
            from_plain(plain, {})
        plain["parameters"][parameter] = given_up[parameter]


@pytest.mark.parametrize("name", ["AffinityMatcher", "COSNE", "TSNEkhorn", "PACMAP"])
def test_methods_without_networks_have_had_parameters_of_them(name):
    assert {"encoder", "decoder", "extra_loss", "batch_size"} <= set(getattr(torchdr_cne, name)._former_parameters)
