"""Forces as Triton kernels on CUDA devices, made from the same declarations as the compiled kernels of the CPU."""
