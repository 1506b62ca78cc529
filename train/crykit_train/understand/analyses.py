"""The analyses of `crykit train analyze`, each from models and clips to JSON and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crykit.dataset import Clip, read_clip, read_manifest
from crykit.errors import InputError, UsageError
from crykit_train.probe.sources import Source
from crykit_train.ssl.corpus import window_frames
from crykit_train.understand import pictures
from crykit_train.understand.cka import cka_matrix, layer_grams
from crykit_train.understand.descriptors import PITCHED, describe_all
from crykit_train.understand.domains import (
    domain_tasks,
    pretrain_domains,
    run_domains,
    trained_domains,
)
from crykit_train.understand.models import open_models, split_name
from crykit_train.understand.recipes import AnalyzeRecipe, PanelRecipe
from crykit_train.understand.rsa import (
    LEAST_CLIPS,
    Rsa,
    Summary,
    analyse,
    one_of_each_group,
    spearman,
    summarise,
)
from crykit_train.understand.study import Progress, Study, to_json
from crykit_train.understand.tsne import neighbours_agree, project


def analyse_all(
    recipe: AnalyzeRecipe,
    manifest: Path,
    out: Path,
    *,
    what: Sequence[str],
    models: Sequence[str] = (),
    resume: bool = False,
    leaky: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Every analysis asked for; what each found, which also lies in ``out`` as JSON and pictures.

    Args:
        what: of ``domains``, ``cka``, ``rsa``, ``tsne`` and ``ladder``.
        models: ``NAME=PATH`` each; encoders that ``domains`` trained in ``out`` come before them.
    """
    import torch

    torch.set_num_threads(recipe.threads)
    clips = read_manifest(manifest, leaky=leaky)
    _folder(out)
    # Asked before hours of training, so that a manifest which cannot answer is refused at once.
    tasks = domain_tasks(recipe.domains, clips, leaky=leaky) if "domains" in what else {}
    if "domains" in what:
        pretrain_domains(recipe.domains, clips, out, resume=resume, leaky=leaky, progress=progress)
    found: dict[str, Any] = {}
    if set(what) - {"ladder"}:
        named = [*trained_domains(recipe.domains, out), *map(split_name, models)]
        opened = open_models(named, recipe.encoder, recipe.seed)
        also = [clip for folds in tasks.values() for task in folds for clip in task.clips]
        study = Study(recipe, clips, opened, out, leaky, progress, also)
        if "domains" in what:
            found["domains"] = run_domains(study, tasks)
        runs = {"cka": run_cka, "rsa": run_rsa, "tsne": run_tsne}
        found |= {name: run(study) for name, run in runs.items() if name in what}
    if "ladder" in what:
        from crykit_train.understand.ladder import run_ladder

        found["ladder"] = run_ladder(recipe.ladder, manifest, out, progress=progress)
    return {name: to_json(result) for name, result in found.items()}


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder ({error.strerror})") from None


# --- centred kernel alignment -----------------------------------------------------------------


def run_cka(study: Study) -> dict[str, Any]:
    """CKA between the layers of pairs of encoders, over windows of clips of different groups."""
    recipe, rng = study.recipe.cka, np.random.default_rng([study.recipe.seed, 1])
    ours = [name for name, model in study.models.items() if model.pretrained is not None]
    pairs = list(recipe.pairs) or list(combinations(ours, 2)) or [(n, n) for n in ours]
    unknown = sorted({name for pair in pairs for name in pair} - set(ours))
    if unknown or not pairs:
        raise UsageError(
            f"cka: no encoder of ours is called {(unknown or ['anything'])[0]!r}; give its run "
            "folder with --model NAME=PATH"
        )
    chosen = one_of_each_group([c.group for c in study.looked_at], recipe.clips, rng)
    rows = study.bank.rows([study.looked_at[i] for i in chosen])
    grams: dict[str, dict[str, NDArray[np.float64]]] = {}
    needed = list(dict.fromkeys(name for pair in pairs for name in pair))
    for step, name in enumerate(needed):
        grams[name] = _grams(study, study.models[name], rows)
        study.tell(step + 1, len(needed))
    matrices = {(a, b): cka_matrix(grams[a], grams[b], debiased=recipe.debiased) for a, b in pairs}
    layers = {name: [layer or "embedding" for layer in own] for name, own in grams.items()}
    how = "debiased" if recipe.debiased else "plain"
    title = f"Linear CKA of layers ({how}), {len(rows)} clips of as many groups"
    pictures.draw_cka(matrices, layers, study.out / "cka.png", title=title, leaky=study.leaky)
    found = {
        "clips": len(rows),
        "window_s": recipe.window_s,
        "debiased": recipe.debiased,
        "layers": layers,
        "pairs": [{"a": a, "b": b, "cka": m.round(4).tolist()} for (a, b), m in matrices.items()],
    }
    return study.write("cka", found)


def _grams(study: Study, model: Source, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    assert model.pretrained is not None
    encoder, frames = model.pretrained.encoder.eval(), window_frames(study.recipe.cka.window_s)
    if frames < encoder.min_frames:
        raise UsageError(
            f"cka.window_s {study.recipe.cka.window_s:g} is {frames} frames, but {encoder.name} "
            f"needs {encoder.min_frames}"
        )
    corpus = study.bank.log_mels(encoder.n_mels)
    middle = np.maximum(corpus.lengths[rows] - frames, 0) // 2
    windows = corpus.windows_at(rows, middle, frames)
    windows = (windows - model.pretrained.mean) / model.pretrained.std
    return layer_grams(encoder, windows.split(32))


# --- representational similarity --------------------------------------------------------------


def run_rsa(study: Study) -> dict[str, Any]:
    """RSA in every source, corrected and averaged, with its two pictures."""
    study.need_models()
    recipe = study.recipe.rsa
    embeddings = study.embeddings
    results: list[Rsa] = []
    for step, source in enumerate(recipe.sources):
        found = _rsa_of(study, source, embeddings)
        if found is not None:
            results.append(found)
        study.tell(step + 1, len(recipe.sources))
    summary = summarise(results)
    pictures.draw_rsa(summary, study.out / "rsa.png", leaky=study.leaky)
    pictures.draw_model_rsa(summary, study.out / "rsa_models.png", leaky=study.leaky)
    return study.write("rsa", _rsa_record(summary, results, recipe.permutations))


def _rsa_of(study: Study, source: str, embeddings: dict[str, NDArray[np.float32]]) -> Rsa | None:
    """RSA of one source; None where it has too few groups."""
    recipe, clips = study.recipe.rsa, study.looked_at
    rng = np.random.default_rng([study.recipe.seed, 2])
    rows = np.array([i for i, c in enumerate(clips) if c.source == source], np.intp)
    if not len(rows):
        return None
    rows = rows[one_of_each_group([clips[i].group for i in rows], recipe.clips, rng)]
    if len(rows) < LEAST_CLIPS:
        return None
    columns = describe_all([read_clip(clips[i]) for i in rows])
    if source not in recipe.pitched_sources:
        columns = {k: np.full(len(rows), np.nan) if k in PITCHED else v for k, v in columns.items()}
    return analyse(
        source,
        {name: values[rows] for name, values in embeddings.items()},
        columns,
        [clips[i].group for i in rows],
        permutations=recipe.permutations,
        seed=study.recipe.seed,
    )


def _rsa_record(summary: Summary, results: Sequence[Rsa], permutations: int) -> dict[str, Any]:
    profiles = [summary.rho[m] for m in range(len(summary.models))]
    known = np.isfinite(np.stack(profiles)).all(0)
    return {
        "permutations": permutations,
        "sets": summary.sets,
        "descriptors": list(summary.descriptors),
        "rho": summary.rho,
        "retained_rho": summary.retained,
        "n_retained": summary.n_retained,
        "n_sets": summary.n_sets,
        "model_rho": summary.model_rho,
        "model_n_retained": summary.model_n_retained,
        # Do two models follow the same descriptors? Spearman over descriptors.
        "profile_rho": [[spearman(a[known], b[known]) for b in profiles] for a in profiles],
        "by_set": [{"name": r.name, "rho": r.rho, "p": r.p} for r in results],
    }


# --- t-SNE ------------------------------------------------------------------------------------


def run_tsne(study: Study) -> dict[str, Any]:
    """Panels of one model's embeddings, and for every model how well neighbours agree."""
    study.need_models()
    recipe = study.recipe.tsne
    name = recipe.model if recipe.model in study.models else next(iter(study.models))
    embeddings, clips = study.embeddings, study.looked_at
    drawn: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for step, panel in enumerate(recipe.panels):
        rows = _panel_rows(study, panel)
        if len(rows) < LEAST_CLIPS:
            records.append({"title": panel.title, "clips": len(rows), "drawn": False})
            continue
        places = project(
            embeddings[name][rows], perplexity=recipe.perplexity, seed=study.recipe.seed
        )
        own = [clips[i] for i in rows]
        picture, record = _panel(panel, own, {m: e[rows] for m, e in embeddings.items()})
        drawn.append({**picture, "places": places, "title": f"{panel.title} ({len(rows)})"})
        records.append({"title": panel.title, "clips": len(rows), "drawn": True, **record})
        study.tell(step + 1, len(recipe.panels))
    if not drawn:
        raise InputError("t-SNE: no panel has ten clips; widen the panels' sources and events")
    title = f"Embeddings of '{name}' by t-SNE (clips)"
    pictures.draw_places(drawn, study.out / "tsne.png", title=title, leaky=study.leaky)
    return study.write("tsne", {"model": name, "panels": records})


def _panel_rows(study: Study, panel: PanelRecipe) -> NDArray[np.intp]:
    rng = np.random.default_rng([study.recipe.seed, 3])
    rows = [
        i
        for i, clip in enumerate(study.looked_at)
        if (not panel.sources or clip.source in panel.sources)
        and (clip.event in panel.events if panel.events else clip.event != "unverified")
    ]
    kept = rng.permutation(len(rows))[: study.recipe.tsne.clips]
    return np.sort(np.array(rows, np.intp)[kept])


def _panel(
    panel: PanelRecipe, clips: Sequence[Clip], embeddings: dict[str, NDArray[np.float32]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What colours the panel, and what is written of it."""
    if panel.colour == "pitch":
        pitch = describe_all([read_clip(clip) for clip in clips])["pitch"]
        record = {"with_pitch": int(np.isfinite(pitch).sum())}
        return {"values": 1000.0 * 2.0**pitch, "unit": "pitch, Hz"}, record
    labels = [getattr(clip, panel.colour).removeprefix("word:") for clip in clips]
    groups = [clip.group for clip in clips]
    agreed: dict[str, Any] = {}
    for name, values in embeddings.items():
        try:
            found, chance = neighbours_agree(values, labels, groups)
        except InputError:
            continue  # too few groups: there is a picture, and no number
        agreed[name] = {"found": round(found, 4), "chance": round(chance, 4)}
    return {"labels": labels}, {"neighbours_agree": agreed}
