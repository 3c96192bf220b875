"""A whole study for the tests of its page: real digits and mistakes, made-up trials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from search.data import TrainingData
from search.inference import wilson_interval
from search.metrics import measure
from search.page.article import ReportContent
from search.records import (
    Candidate,
    Champion,
    Comparison,
    Contest,
    Costs,
    Criteria,
    EpochReport,
    Inspected,
    Interval,
    Latency,
    Layer,
    Opening,
    Phase,
    Reasoned,
    Recommendation,
    State,
    Tested,
    TrialRecord,
    Verdict,
)
from search.registry import RegisteredModel
from spaces.config import TrialConfig
from tests.builders import make_config, make_epoch, make_totals, make_trial

CLASSES = tuple(str(digit) for digit in range(10))
RUNS = 5


@lru_cache(maxsize=1)
def _digits() -> tuple[TrainingData, Inspected, Tested, Tested]:
    """The pool, a model on train and validation, and two models on the test split."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(labels))
    images, labels = images[order], labels[order].astype(np.int32)
    model = LogisticRegression(C=10, max_iter=500).fit(images[:1149] / 16, labels[:1149])
    weak = LogisticRegression(C=0.1, max_iter=500).fit(images[:1149] / 16, labels[:1149])
    said = model.predict_proba(images / 16).astype(np.float32)
    pool = images[:1437].reshape(-1, 8, 8, 1).astype(np.float32)
    inspected = Inspected(
        layers=(Layer("images", "InputLayer", (None, 8, 8, 1), 0, ""),),
        train=np.arange(1149, dtype=np.int32),
        validation=np.arange(1149, 1437, dtype=np.int32),
        train_probabilities=said[:1149],
        val_probabilities=said[1149:1437],
        positions=np.arange(10, dtype=np.int32),
        activations={},
    )
    other = weak.predict_proba(images[1437:] / 16).astype(np.float32)
    tests = [make_tested(labels[1437:], p) for p in (said[1437:], other)]
    return TrainingData("digits", pool, labels[:1437], CLASSES), inspected, tests[0], tests[1]


def make_tested(labels: Any, probabilities: Any) -> Tested:
    """What these probabilities come to on images of these labels."""
    measures = measure(labels, probabilities)
    matrix = measures.confusion
    right = sum(row[i] for i, row in enumerate(matrix))
    recalls = [wilson_interval(row[i], sum(row)) for i, row in enumerate(matrix)]
    return Tested(wilson_interval(right, len(labels)), measures, tuple(recalls))


def make_costs(single: float) -> Costs:
    return Costs(110_000, Latency(single, 2 * single), Latency(10 * single, 12 * single))


def make_search(count: int = 24) -> tuple[list[TrialRecord], dict[int, list[EpochReport]]]:
    """Trials of a search with their epochs; one in two stops at a rung, the last one fails."""
    rng = np.random.default_rng(5)
    trials, epochs = [], {}
    for number in range(count):
        config = TrialConfig(
            hidden=tuple(int(n) for n in rng.integers(16, 512, rng.integers(1, 4))),
            dropout=float(rng.uniform(0, 0.5)),
            batch_size=int(rng.choice([32, 64, 128, 256])),
            optimizer=str(rng.choice(["adam", "rmsprop", "sgd"])),
            learning_rate=float(10 ** rng.uniform(-4, -1.5)),
        )
        best = 0.99 - 0.1 * float(rng.random()) ** 2
        rung = (2, 6, None, None)[number % 4]
        length = rung or 18
        curve = [best - 0.5 * float(np.exp(-0.5 * n)) for n in range(1, length + 1)]
        epochs[number] = [
            make_epoch(n, val_accuracy=a, epoch_seconds=0.25) for n, a in enumerate(curve, 1)
        ]
        values: dict[str, Any] = {
            "config": config,
            "val_accuracy": curve[-1],
            "parameters": 64 * config.hidden[0] + 10,
            "state": State.STOPPED if rung else State.COMPLETED,
            "rung": rung,
            "epochs_trained": length,
            "max_epochs": 18,
            "started_ms": 1_000_000 + 500 * number,
            "ended_ms": 1_003_000 + 500 * number,
        }
        if number == count - 1:
            values |= {"state": State.FAILED, "totals": None, "reason": "the loss is not finite"}
            values.pop("val_accuracy"), values.pop("parameters")
            epochs[number] = []
        trials.append(make_trial(number, **values))
    return trials, epochs


def make_candidates() -> list[Candidate]:
    """A winner that costs more than the baseline, a near one, and the champion's."""
    rows = [
        (make_config(352), (0.981, 0.984, 0.979, 0.986, 0.983), 26_410, 0.9896, 1.4),
        (make_config(39), (0.978, 0.985, 0.976, 0.983, 0.985), 18_195, 0.9873, 1.6),
        (make_config(31), (0.966, 0.972, 0.964, 0.971, 0.969), 43_101, 0.9861, 1.9),
        (make_config(128), (0.961, 0.965, 0.958, 0.967, 0.962), 9_610, None, 1.2),
    ]  # fmt: skip
    return [
        Candidate(
            config=config,
            accuracies=accuracies,
            trials=tuple(range(100 + 10 * n, 100 + 10 * n + RUNS)),
            parameters=parameters,
            search_accuracy=score,
            is_baseline=score is None,
            is_champion=n == 2,
            gaps=(0.012, 0.010, 0.014, 0.011, 0.013),
            recalls=tuple([accuracies[0]] * 10),
            costs=make_costs(milliseconds),
        )
        for n, (config, accuracies, parameters, score, milliseconds) in enumerate(rows)
    ]


def make_confirmations(candidates: Sequence[Candidate]) -> list[TrialRecord]:
    return [
        make_trial(
            number,
            phase=Phase.CONFIRM,
            config=candidate.config,
            seed=9_000 + run,
            split_seed=8_000 + run,
            totals=make_totals(val_accuracy=accuracy, parameters=candidate.parameters),
            epochs_trained=18,
            started_ms=1_020_000,
            ended_ms=1_060_000,
        )
        for candidate in candidates
        for run, (number, accuracy) in enumerate(
            zip(candidate.trials, candidate.accuracies, strict=True)
        )
    ]


def make_decision(chosen: int = 1, policy: str = "one-standard-error") -> Recommendation:
    """The candidate at `chosen` is recommended; the evidence does not separate the first two."""
    found = make_candidates()
    ids = [c.config.config_id for c in found]
    reasons = [
        f"{'Chosen' if n == chosen else 'Not chosen'}: reason {n}." for n in range(len(found))
    ]
    errors = (0.00181, 0.00279, 0.00225, 0.00235)
    winner = found[chosen]
    rivals = (("runner-up", 0), ("champion", 2), ("baseline", 3))
    return Recommendation(
        ranked=tuple(map(Reasoned, found, errors, reasons)),
        chosen=chosen,
        summary="Recommended: the one that this sentence names.",
        criteria=Criteria(policy=policy),
        comparisons=tuple(
            Comparison(
                rival,
                ids[n],
                Interval(winner.mean - found[n].mean, -0.00584 + n / 100, 0.00344 + n / 100),
                0.25 + n / 5,
                0.512 / (n + 1),
                0.9 / (n + 1),
            )
            for rival, n in rivals
            if n != chosen
        ),
        unseparated=tuple(ids[n] for n in (0, 1) if n != chosen and chosen < 2),
        optimism=None if winner.search_accuracy is None else winner.search_accuracy - winner.mean,
        alternatives={"one-standard-error": ids[1], "best-mean": ids[0], "pareto": ids[3]},
        changes=("Under best-mean it would be another one.", "More runs would separate them."),
    )


def make_contest(rival: str, name: str, tested: Tested, **values: Any) -> Contest:
    fields: dict[str, Any] = {
        "difference": Interval(0.0139, -0.0061, 0.0339),
        "only_recommended_right": 9,
        "only_rival_right": 4,
        "p_value": 0.267,
        "adjusted_p": 0.534,
    }
    return Contest(rival, name, tested, **(fields | values))


def make_verdict(**values: Any) -> Verdict:
    _, _, tested, weak = _digits()
    contests = (
        make_contest("baseline", make_config(128).config_id, weak),
        make_contest(
            "champion",
            "models:/podium-digits/3",
            weak,
            difference=Interval(0.0417, 0.0139, 0.0694),
            only_recommended_right=19,
            only_rival_right=4,
            p_value=0.00261,
            adjusted_p=0.00522,
        ),
    )
    fields: dict[str, Any] = {
        "tested": tested,
        "contests": contests,
        "images": 360,
        "openings": 2,
        "speaks_for_it": True,
        "headline": "Ship what the headline names.",
        "sentence": "Ship the candidate that the verdict names: it gets more test images right.",
    }
    return Verdict(**(fields | values))


def make_content(**values: Any) -> ReportContent:
    """Of a study with everything that a page can show."""
    training, inspected, _, _ = _digits()
    trials, epochs = make_search()
    fields: dict[str, Any] = {
        "study": "digits-1",
        "trials": [*trials, *make_confirmations(make_candidates())],
        "epochs": epochs,
        "recommendation": make_decision(),
        "verdict": make_verdict(),
        "command": "podium run --data digits --seed 3",
        "settings": {
            "space": "mlp",
            "sampler": "tpe",
            "scheduler": "asha",
            "max_epochs": 18,
            "first_rung": 2,
            "reduction": 3,
            "finalists": 5,
            "confirm_seeds": 5,
            "seed": 3,
            "folds": 0,
        },
        "facts": {
            "data": "digits",
            "fingerprint": "d53f9a23e51cf8de",
            "test_fingerprint": "0123456789abcdef",
            "image_shape": [8, 8, 1],
            "classes": 10,
            "class_names": list(CLASSES),
            "train_images": 1_149,
            "validation_images": 288,
            "test_images": 360,
            "seed": 3,
            "git_commit": "f667e5a0c0ffee",
            "versions": {"python": "3.11.7", "numpy": "2.4"},
        },
        "model": RegisteredModel("podium-digits", "4", "m-1"),
        "model_file": Path("runs/studies/digits-1/model/data/model.keras"),
        "champion": Champion(
            "podium-digits", "3", "digits-0", make_config(31), "mlp", "0123456789abcdef", None
        ),
        "importances": {
            "learning_rate": 0.52,
            "optimizer": 0.2,
            "dropout": 0.12,
            "units_1": 0.1,
            "layers": 0.04,
            "batch_size": 0.02,
        },
        "openings": (
            Opening("0123456789abcdef", "digits-0", "verdict", 1_760_000_000_000),
            Opening("0123456789abcdef", "digits-1", "verdict", 1_760_086_400_000),
        ),
        "training": training,
        "inspected": inspected,
        "shipped": make_candidates()[1].trials[3],
        "rungs": {2: 24, 6: 18},
    }
    return ReportContent(**(fields | values))
