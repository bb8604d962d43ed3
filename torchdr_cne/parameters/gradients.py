"""Parameters for the similarity of embedded points, and for how gradients are computed."""

from typing import ClassVar

from torchdr_cne.checks import check_choice
from torchdr_cne.parameters.group import ParameterGroup, group
from torchdr_cne.similarities import Similarity


@group
class Gradients(ParameterGroup):
    """The similarity of embedded points, and how gradients are computed.

    Parameters
    ----------
    similarity : Similarity or None, default=None
        Similarity of embedded points; None is the method's own similarity.
    gradient : {"auto", "pairwise", "autograd"}, default="auto"
        How gradients are computed: "pairwise" sums the declared forces, "autograd" differentiates the loss hooks, and
        "auto" uses the forces if the method declares them for this similarity and loss.
    """

    similarity: Similarity | None = None
    gradient: str = "auto"

    _gradients: ClassVar[tuple[str, ...]] = ("auto", "pairwise", "autograd")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("gradient", self.gradient, self._gradients)
        if not (self.similarity is None or isinstance(self.similarity, Similarity)):
            raise ValueError(
                f"similarity={self.similarity!r} must be None or a Similarity such as Cauchy() or CosineExp()."
            )
        reason = self._why_not_forces()
        if self.gradient == "pairwise" and reason:
            raise ValueError(f"gradient='pairwise' is not possible: {reason}; use gradient='auto'.")

    def _why_not_forces(self) -> str:
        """Return why declared forces cannot replace the loss hooks, "" if they can; a subclass defines this."""
        raise TypeError(f"{type(self).__name__} states no _why_not_forces.")
