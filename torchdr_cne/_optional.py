"""Dependencies that are imported when first used; the error message says how to install them."""

import importlib
from types import ModuleType

_INSTALL_NAME = {
    "faiss": "faiss-cpu",
    "pykeops": "pykeops",
    "pandas": "'torchdr_cne[tables]'",
    "polars": "'torchdr_cne[tables]'",
    "pyarrow": "'torchdr_cne[tables]'",
    "zarr": "'torchdr_cne[tables]'",
    "torchvision": "'torchdr_cne[images]'",
    "mlxtend": "'torchdr_cne[test]'",
}


def import_optional(module: str, purpose: str) -> ModuleType:
    """Return ``module``, or raise an ImportError that says what needs it and how to install it.

    Parameters
    ----------
    module : str
        Dotted module name.
    purpose : str
        What needs the module, as the subject of the error message: ``"backend='faiss'"``.
    """
    root = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _INSTALL_NAME.get(root, root)
        raise ImportError(
            f"{purpose} needs the package {root!r}, which cannot be imported ({error}); "
            f"install it with: pip install {package}"
        ) from error
