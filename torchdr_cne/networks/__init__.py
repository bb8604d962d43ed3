"""Points computed by a network: its rows, its mini-batches, its losses and its gradients."""
