"""The objectives that are minimised: losses of points and of pairs, by autograd or by declared forces."""
