"""What is minimised: losses of points and of pairs, by autograd or by declared forces."""
