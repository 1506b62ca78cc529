"""A whole evaluation of one model on one task: grid, repeats, scores on the test fold.

Gorin et al. (2023), 2.3: learning rates by grid search on validation, then the best of them
repeated with other seeds. A task of several folds (reasons) is chosen and trained within each, and
the test scores of the folds are pooled, so that every clip is scored once a repeat.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crykit.errors import FaultFound, UsageError
from crykit_train.probe.metrics import average_precision, class_scores, macro_auc
from crykit_train.probe.outcome import Outcome, pooled
from crykit_train.probe.recipes import ProtocolRecipe
from crykit_train.probe.sources import ClipBank, LogMelInputs, Source
from crykit_train.probe.tasks import Task
from crykit_train.probe.training import Embedded, Fit, Inputs, Probe, fit, predict

Rates = tuple[float, float]
Tell = Callable[[str], None]


def evaluate_source(
    source: Source,
    folds: Sequence[Task],
    recipe: ProtocolRecipe,
    bank: ClipBank,
    *,
    device: torch.device | None = None,
    tell: Tell | None = None,
) -> Outcome:
    """Score a model on a task by one protocol.

    Args:
        folds: one task, or the folds of one; their test clips are disjoint.
        bank: must hold all their clips.
        tell: called with a line on what is being done.

    Raises:
        UsageError: a protocol that trains the encoder, and a model that has none.
        FaultFound: no learning rate of the grid gave a number.
    """
    if recipe.protocol in ("linear+bn", "end-to-end") and not source.trainable:
        raise UsageError(f"{source.name}: has no weights to train; use linear or logistic")
    embeddings = bank.embeddings(source)
    outcomes: list[Outcome] = []
    for task in folds:
        rows = torch.from_numpy(bank.rows(task.clips))
        run = _logistic if recipe.protocol == "logistic" else _Trainer(source, bank, device, tell)
        outcomes.append(run(task, embeddings[rows], recipe))
    return pooled(outcomes)


class _Trainer:
    """Grid search and repeats of the protocols that train by gradient."""

    def __init__(
        self, source: Source, bank: ClipBank, device: torch.device | None, tell: Tell | None
    ) -> None:
        self.source, self.bank, self.device, self.tell = source, bank, device, tell

    def __call__(self, task: Task, embeddings: Tensor, recipe: ProtocolRecipe) -> Outcome:
        inputs: Inputs = Embedded(embeddings)
        if recipe.protocol != "linear":
            assert self.source.pretrained is not None
            corpus = self.bank.log_mels(self.source.pretrained.encoder.n_mels)
            inputs = LogMelInputs(corpus, self.bank.rows(task.clips), recipe.window_s)
        test = task.indices("test")
        rates, searched = self._search(task, embeddings, inputs, recipe)
        fits, scores = list(searched), []
        best: Fit | None = None
        for repeat in range(recipe.repeats):
            found = self._fit(task, embeddings, inputs, recipe, rates, recipe.seed + 1 + repeat)
            logits = predict(found.probe, inputs, test, self.device, recipe.precision)
            scores.append(class_scores(logits))
            fits.append(_record(task, found, rates, recipe.seed + 1 + repeat, "repeat"))
            if best is None or found.merit > best.merit:
                best = found
        chosen = {"learning_rate": rates[0]}
        if recipe.protocol == "end-to-end":
            chosen["encoder_learning_rate"] = rates[1]
        groups = [task.groups[i] for i in test]
        return Outcome(task, task.targets[test], groups, np.array(scores), [chosen], fits, best)

    def _search(
        self, task: Task, embeddings: Tensor, inputs: Inputs, recipe: ProtocolRecipe
    ) -> tuple[Rates, list[dict[str, Any]]]:
        encoder = recipe.encoder_learning_rates if recipe.protocol == "end-to-end" else (0.0,)
        grid = list(product(recipe.learning_rates, encoder))
        if len(grid) == 1:
            return grid[0], []
        results: list[tuple[tuple[float, float], Rates]] = []
        records: list[dict[str, Any]] = []
        for rates in grid:
            try:
                found = self._fit(task, embeddings, inputs, recipe, rates, recipe.seed)
            except FaultFound as fault:  # too high a rate is out of the race, and told of
                records.append({"kind": "grid", "rates": rates, "fault": str(fault)})
                continue
            results.append((found.merit, rates))
            records.append(_record(task, found, rates, recipe.seed, "grid"))
        if not results:
            raise FaultFound(f"{task.name}: no learning rate of the grid gave a finite loss")
        return max(results, key=lambda r: r[0])[1], records

    def _fit(
        self,
        task: Task,
        embeddings: Tensor,
        inputs: Inputs,
        recipe: ProtocolRecipe,
        rates: Rates,
        seed: int,
    ) -> Fit:
        torch.manual_seed(seed)
        body = None if recipe.protocol == "linear" else self.source.body()
        training = embeddings[torch.from_numpy(task.indices("train"))]
        probe = Probe(body, training, len(task.classes))
        if self.tell:
            self.tell(f"{self.source.name}, {task.name}, {recipe.protocol}, {rates}, seed {seed}")
        return fit(
            probe,
            inputs,
            task,
            recipe,
            learning_rate=rates[0],
            encoder_learning_rate=rates[1],
            seed=seed,
            device=self.device,
        )


def _record(task: Task, found: Fit, rates: Rates, seed: int, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "task": task.name,
        "rates": list(rates),
        "seed": seed,
        "epoch": found.epoch,
        "val_score": round(found.validation_score, 6),
        "val_loss": found.validation_loss,
        "history": found.history,
    }


def _logistic(task: Task, embeddings: Tensor, recipe: ProtocolRecipe) -> Outcome:
    """Standardised embeddings and logistic regression, C by the validation score; no seed."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = embeddings.double().numpy(), task.targets
    train, val, test = (task.indices(f) for f in ("train", "val", "test"))
    scaler = StandardScaler().fit(x[train])
    x = np.asarray(scaler.transform(x), np.float64)
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for c in sorted(recipe.c_grid):  # of equals the strongest regularisation wins
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=c, class_weight="balanced", max_iter=500)
            model.fit(x[train], y[train])
        scores = _log_odds(model, x, len(task.classes))
        merit = (
            average_precision(y[val], scores[val])
            if task.metric == "average precision"
            else macro_auc(y[val], scores[val], absent_ok=True)
        )
        if best is None or merit > best[0] + 1e-9:
            best = (float(merit), c, scores[test])
    assert best is not None
    groups = [task.groups[i] for i in test]
    chosen = {"C": best[1], "val_score": round(best[0], 6)}
    return Outcome(task, y[test], groups, best[2][None], [chosen])


def _log_odds(model: Any, x: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    decision = model.decision_function(x)
    if n_classes == 2:
        return np.stack([-decision, decision], axis=1)
    return class_scores(decision)
