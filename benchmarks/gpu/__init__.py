"""The stages of `benchmarks.gpu_check`: each is a function of a `Setting` that yields results."""
