"""What files may name: dataclasses that are written as their class's name and their parameters."""


class Storable:
    """Marks a dataclass that is saved by name and parameters and made anew from them, without any code in the file."""
