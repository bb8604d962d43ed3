"""Watch an embedding find its shape: a callback collects frames, matplotlib makes them a film.

Run with ``python examples/animation.py``; it writes ``animation.gif``.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.animation import FuncAnimation, PillowWriter
from sklearn.datasets import load_digits

from torchdr_cne import Every, NCVis


def main():
    X, y = load_digits(return_X_y=True)
    frames = []

    def look(estimator, step):
        losses = estimator.history_.get("loss", [np.nan])
        frames.append((step, estimator.embedding_, losses[-1], estimator.log_z_))

    NCVis(encoder="mlp", max_iter=600, check_interval=20, callbacks=Every(20, look), random_state=0).fit(X)

    figure, axes = plt.subplots(figsize=(5, 5))
    points = axes.scatter(*frames[0][1].T, c=y, cmap="tab10", s=4)

    def show(number):
        step, Z, loss, log_z = frames[number]
        points.set_offsets(Z)
        low, high = Z.min(axis=0), Z.max(axis=0)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes.set_title(f"mini-batch {step}: loss {loss:.2f}, log Z {log_z:.2f}")
        return (points,)

    FuncAnimation(figure, show, frames=len(frames)).save("animation.gif", writer=PillowWriter(fps=10))
    plt.close(figure)


if __name__ == "__main__":
    main()
