"""The mark of dataclasses that files may name, which are written as the name of the class and its parameters."""


class Storable:
    """Marks a dataclass that is saved by name and parameters and rebuilt from them, without any code in the file."""
