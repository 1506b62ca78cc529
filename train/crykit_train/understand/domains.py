"""The domain question: does an encoder have to have heard what it will be asked about?

M. Ogg, "Self-Supervised Convolutional Audio Models are Flexible Acoustic Feature Learners" (2025):
one encoder is pre-trained on speech, one on everything but speech, one on both, on as many seconds
each; a linear probe then asks them, and a peer of each domain, about speech, other sounds, voice
activity, and here cries. Sources that a task is built on are heard by no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from crykit.dataset import SPLITS, Clip, data_summary, without_sources
from crykit.errors import InputError, UsageError
from crykit_train.probe.outcome import Outcome, pooled
from crykit_train.probe.protocol import evaluate_source
from crykit_train.probe.recipes import ProtocolRecipe, tasks_of
from crykit_train.probe.sources import ClipBank, Source
from crykit_train.probe.tasks import Task, describe
from crykit_train.probe.transfer import accuracies, transfer
from crykit_train.ssl.folder import CHECKPOINT
from crykit_train.ssl.recipes import PretrainRecipe
from crykit_train.understand.models import RANDOM
from crykit_train.understand.paired import paired
from crykit_train.understand.recipes import (
    Domain,
    DomainsRecipe,
    DomainTask,
    ProbeProtocol,
)
from crykit_train.understand.study import Study

Progress = Callable[[int, int, float], None]


def seconds_of(clips: Sequence[Clip]) -> float:
    """Their duration, by the manifest's ``duration_s``, else by the files' headers."""
    import soundfile

    return sum(clip.number("duration_s", -1.0) if clip.number("duration_s", -1.0) >= 0.0 else
               soundfile.info(clip.path).duration for clip in clips)  # fmt: skip


def domain_clips(
    clips: Sequence[Clip], domain: Domain, recipe: DomainsRecipe, seed: int = 0
) -> list[Clip]:
    """What the encoder of a domain hears: train clips, drawn at random up to the seconds.

    The clips of ``both`` are the first halves of the draws for ``speech`` and ``non-speech``, those
    of ``sum`` both draws whole, so that the encoders differ in nothing but what they heard.

    Raises:
        InputError: a domain without a clip, or with fewer seconds than asked for.
    """
    speech = _shuffled(_pool(clips, recipe, recipe.speech_events, "speech"), seed)
    other = _shuffled(_pool(clips, recipe, recipe.other_events, "non-speech"), seed)
    held = {"speech": seconds_of(speech), "non-speech": seconds_of(other)}
    seconds = recipe.seconds or min(held.values())
    short = [name for name, value in held.items() if value < seconds - 1e-6]
    if short:
        raise InputError(
            f"domains: {short[0]} holds {held[short[0]]:.0f} s, fewer than {seconds:.0f}; lower "
            "domains.seconds"
        )
    parts = {
        "speech": [_first(speech, seconds)],
        "non-speech": [_first(other, seconds)],
        "both": [_first(speech, seconds / 2), _first(other, seconds / 2)],
        "sum": [_first(speech, seconds), _first(other, seconds)],
    }
    return [clip for part in parts[domain] for clip in part]


def _pool(
    clips: Sequence[Clip], recipe: DomainsRecipe, events: Sequence[str], name: str
) -> list[Clip]:
    found = [
        clip
        for clip in without_sources(clips, recipe.held_out)
        if clip.split == "train" and clip.event in events
    ]
    if not found:
        raise InputError(
            f"domains: no train clip of {name} is left without {', '.join(recipe.held_out)}; "
            "hold fewer sources out"
        )
    return found


def _shuffled(clips: list[Clip], seed: int) -> list[Clip]:
    return [clips[i] for i in np.random.default_rng([seed, 23]).permutation(len(clips))]


def _first(clips: Sequence[Clip], seconds: float) -> list[Clip]:
    """The first clips that come closest to so many seconds."""
    ends = np.cumsum([seconds_of([clip]) for clip in clips])
    return list(clips[: int(np.abs(ends - seconds).argmin()) + 1])


# --- pre-training -----------------------------------------------------------------------------


def run_name(domain: str, seed: int) -> str:
    """Of the run folder."""
    return f"{domain}-{seed}"


def title(domain: str, seed: int, recipe: DomainsRecipe) -> str:
    """Of the model: the first seed's goes by the domain's name alone."""
    return domain if seed == recipe.seeds[0] else f"{domain}, seed {seed}"


def _runs(recipe: DomainsRecipe) -> list[tuple[Domain, int]]:
    return [(domain, seed) for seed in recipe.seeds for domain in recipe.domains]


def pretrain_domains(
    recipe: DomainsRecipe,
    clips: Sequence[Clip],
    out: Path,
    *,
    resume: bool = False,
    leaky: bool = False,
    progress: Progress | None = None,
) -> None:
    """Pre-train an encoder for each domain and seed, in a run folder each; finished ones are kept.

    The clips are drawn once; a seed is that of the weights and batches alone.
    """
    from crykit_train.ssl.build import Plan
    from crykit_train.ssl.engine import train

    if recipe.pretrain is None:
        raise UsageError("domains: give a [domains.pretrain] section, as of crykit train pretrain")
    for domain, seed in _runs(recipe):
        folder, optimiser = out / run_name(domain, seed), recipe.pretrain.train
        of_seed = msgspec.structs.replace(
            recipe.pretrain, train=msgspec.structs.replace(optimiser, seed=seed)
        )
        heard = domain_clips(clips, domain, recipe)
        if (folder / "encoder.json").is_file():
            _check_finished(folder, of_seed, heard)
            continue
        begun = resume and (folder / CHECKPOINT).is_file()
        plan = Plan(of_seed, heard, asked=of_seed, leaky=leaky)
        train(plan, folder, resume=begun, progress=progress)


def _check_finished(folder: Path, recipe: PretrainRecipe, heard: Sequence[Clip]) -> None:
    """Refuse an encoder of another recipe or of other clips."""
    from crykit.nn.pretrained import load_pretrained

    record = load_pretrained(folder).record["training"]
    asked = msgspec.json.decode(msgspec.json.encode(recipe))
    if record["recipe"] != asked or record["data"] != data_summary(heard):
        raise UsageError(
            f"{folder}: holds an encoder of another recipe or of other clips; choose another --out"
        )


def trained_domains(recipe: DomainsRecipe, out: Path) -> list[tuple[str, str]]:
    """(name, folder) of the encoders that `pretrain_domains` has finished in a folder."""
    folders = [(title(d, s, recipe), out / run_name(d, s)) for d, s in _runs(recipe)]
    return [(name, str(path)) for name, path in folders if (path / "encoder.json").is_file()]


# --- tasks ------------------------------------------------------------------------------------


def labels_task(clips: Sequence[Clip], source: str) -> Task:
    """A source's own classes: those which each split has, from two groups at least in each."""
    mine = [c for c in clips if c.source == source]
    groups: dict[tuple[str, str], set[str]] = {}
    for clip in mine:
        groups.setdefault((clip.label, clip.split), set()).add(clip.group)
    names = sorted({clip.label for clip in mine})
    whole = tuple(n for n in names if all(len(groups.get((n, s), ())) > 1 for s in SPLITS))
    kept = [c for c in mine if c.label in whole]
    if len(whole) < 2:
        raise InputError(
            f"domains: {source} has {len(whole)} class(es) with two groups in every split; "
            "name another source"
        )
    folds = np.array([c.split for c in kept], np.str_)
    return Task(f"{source} labels", kept, [c.label for c in kept], whole, folds)


def domain_tasks(
    recipe: DomainsRecipe, clips: Sequence[Clip], *, leaky: bool = False
) -> dict[str, list[Task]]:
    """Every task of the recipe, checked, by its label; one of several folds has them all."""
    return {t.label: _tasks(t, clips, leaky) for t in recipe.tasks}


def _tasks(asked: DomainTask, clips: Sequence[Clip], leaky: bool) -> list[Task]:
    if asked.labels_of:
        return [labels_task(clips, asked.labels_of).check(leaky=leaky)]
    return tasks_of(asked.task, clips, leaky=leaky)


# --- the comparison ---------------------------------------------------------------------------


def run_domains(study: Study, tasks: dict[str, list[Task]]) -> dict[str, Any]:
    """Every model on every task; ``domains.json`` and a picture a protocol (Ogg 2025, figure 1).

    Encoders of one domain that differ in their seed are one row: the mean of their scores.

    Args:
        tasks: of `domain_tasks`; the study's bank holds their clips.
    """
    study.need_models()
    recipe, bank = study.recipe.domains, study.bank
    rows = rows_of(recipe, study.models)
    found: dict[str, Any] = {
        "domains": {task.label: task.domain for task in recipe.tasks},
        "tasks": {label: describe(folds[0]) for label, folds in tasks.items()},
        "seconds": {name: heard_seconds(study.clips, recipe, name) for name in recipe.domains},
        "seeds": {name: len(sources) for name, sources in rows.items()},
    }
    step, steps = 0, len(rows) * len(tasks) * len(recipe.protocols)
    for protocol in recipe.protocols:
        outcomes: dict[str, dict[str, Outcome]] = {name: {} for name in rows}
        for name, sources in rows.items():
            for label, folds in tasks.items():
                each = [_probe(s, folds, bank, recipe, protocol) for s in sources]
                outcomes[name][label] = repeated(each)
                step += 1
                study.tell(step, steps)
        scores = {n: {t: {**o.summary(), **accuracies(o)} for t, o in own.items()}
                  for n, own in outcomes.items()}  # fmt: skip
        found[protocol] = {"scores": scores, "differences": differences(outcomes, recipe)}
        _draw(study, found["domains"], scores, protocol)
    return study.write("domains", found)


def _probe(
    source: Source,
    folds: Sequence[Task],
    bank: ClipBank,
    recipe: DomainsRecipe,
    protocol: ProbeProtocol,
) -> Outcome:
    if protocol == "logistic":
        plan = ProtocolRecipe(protocol="logistic", c_grid=recipe.c_grid)
        return evaluate_source(source, folds, plan, bank)
    embeddings = bank.embeddings(source)
    rows = [torch.from_numpy(bank.rows(task.clips)) for task in folds]
    return pooled(
        [transfer(embeddings[r], t, recipe.plan) for r, t in zip(rows, folds, strict=True)]
    )


def rows_of(recipe: DomainsRecipe, models: dict[str, Source]) -> dict[str, list[Source]]:
    """Sources by row: the seeds of a domain together, every other model alone."""
    rows: dict[str, list[Source]] = {}
    trained = {title(d, s, recipe): str(d) for d, s in _runs(recipe)}
    for name, source in models.items():
        rows.setdefault(trained.get(name, name), []).append(source)
    return rows


def repeated(outcomes: Sequence[Outcome]) -> Outcome:
    """Outcomes on one task, of several seeds of an encoder, as repeats of one."""
    return replace(outcomes[0], scores=np.concatenate([o.scores for o in outcomes]))


def differences(
    outcomes: dict[str, dict[str, Outcome]], recipe: DomainsRecipe
) -> list[dict[str, Any]]:
    """Of each two domains, and of each domain and the untrained encoder, with a paired interval.

    Both are scored on the same draws of groups, so what makes a group hard for both cancels.
    """
    names = [str(d) for d in recipe.domains if str(d) in outcomes]
    pairs = [*combinations(names, 2), *((n, RANDOM) for n in names if RANDOM in outcomes)]
    found: list[dict[str, Any]] = []
    for a, b in pairs:
        for label in outcomes[a]:
            value, low, high = paired(outcomes[a][label], outcomes[b][label])
            ci95 = [round(low, 4), round(high, 4)]
            found.append({"a": a, "b": b, "task": label, "a_minus_b": value, "ci95": ci95})
    return found


def _draw(
    study: Study,
    domains: dict[str, str],
    scores: dict[str, dict[str, dict[str, Any]]],
    protocol: ProbeProtocol,
) -> None:
    from crykit_train.understand.pictures import draw_scores

    by_domain: dict[str, list[str]] = {}
    for label, domain in domains.items():
        by_domain.setdefault(domain, []).append(label)
    short = {"auc": "AUC", "average precision": "AP"}
    how = {"transfer": "linear layer, Adam 1e-4", "logistic": "logistic regression"}[protocol]
    draw_scores(
        {n: {t: (s["value"], *s["ci95"]) for t, s in own.items()} for n, own in scores.items()},
        by_domain,
        {t: short[s["metric"]] for t, s in next(iter(scores.values())).items()},
        study.out / ("domains.png" if protocol == "transfer" else f"domains_{protocol}.png"),
        title=f"What the encoder heard against what it is asked ({how}); bars: 95 % over groups",
        leaky=study.leaky,
    )


def heard_seconds(clips: Sequence[Clip], recipe: DomainsRecipe, domain: Domain) -> float:
    return round(seconds_of(domain_clips(clips, domain, recipe)), 1)
