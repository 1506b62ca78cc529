"""Loss curves as a picture."""

from __future__ import annotations

from pathlib import Path


def draw_curves(
    history: list[dict[str, float]], path: Path, loss_name: str = "frame cross-entropy"
) -> None:
    """Training loss and validation AUC over steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, loss_axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    steps = [row["step"] for row in history]
    loss_axis.plot(steps, [row["loss"] for row in history], color="#0072b2", label="loss (train)")
    loss_axis.set_xlabel("step")
    loss_axis.set_ylabel(loss_name)
    loss_axis.set_yscale("log")
    loss_axis.grid(alpha=0.3)
    scored = [row for row in history if "val_auc" in row]
    if scored:
        auc_axis = loss_axis.twinx()
        auc_axis.plot(
            [row["step"] for row in scored],
            [row["val_auc"] for row in scored],
            color="#d55e00",
            marker="o",
            label="clip AUC (val)",
        )
        auc_axis.set_ylabel("AUC")
        auc_axis.legend(loc="center right")
    loss_axis.legend(loc="upper right")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
