"""What a study does next: search, then confirmation, then one look at the test split."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from search.arrays import VALIDATION_FRACTION
from search.budget import Budget
from search.data import LoadedData
from search.ledger import Ledger
from search.limits import PATIENCE_SECONDS, Limits
from search.records import (
    Assignment,
    Champion,
    ConfigError,
    ConstraintsUnmet,
    EpochReport,
    Examination,
    Inspected,
    Inspection,
    Job,
    Opening,
    Phase,
    Recommendation,
    State,
    StudyFailed,
    TestResult,
    Timing,
    TrialRecord,
    TrialTotals,
    Verdict,
    WorkerReport,
)
from search.sampler import Sampler, derived_seed
from search.scheduler import Decision, Scheduler
from search.selection import confirmed_candidates, left_out, loosened
from search.sensitivity import explained
from search.settings import StudySettings
from search.store import MemoryStore, TrialStore
from search.verdict import judge
from spaces.config import TrialConfig

VERDICT = "final verdict"
HOPELESS_AFTER = 5
"""The study ends when this many trials have ended first and all have failed."""
GRACE_SECONDS = 20.0
"""So long a study that is to stop lets its trials go on, to their next rung."""


@dataclass
class Progress:
    """Where a study stands, for people; read from another thread while it is written."""

    search_total: int
    confirm_total: int
    phase: str = "starting workers"
    running: int = 0
    search_ended: dict[State, int] = field(default_factory=dict)
    confirm_ended: int = 0
    rungs: dict[int, int] = field(default_factory=dict)
    best: float | None = None
    best_trial: int | None = None

    def see(self, number: int, accuracy: float) -> None:
        """Remembers the best trial so far; the first of several."""
        if self.best is None or accuracy > self.best:
            self.best, self.best_trial = accuracy, number


@dataclass(frozen=True, slots=True)
class _Ended:
    job: Assignment
    state: State
    totals: TrialTotals | None
    reason: str | None
    rung: int | None


@dataclass(frozen=True, slots=True)
class _Kept:
    accuracy: float
    job: Assignment
    epoch: int
    model: bytes


class StudyDirector:
    """Hands out trials and hears of them: a state machine without Ray, threads or wall clock.

    The order of every step is: the ledger first, then Optuna and the scheduler, then people.
    """

    def __init__(
        self,
        name: str,
        settings: StudySettings,
        data: LoadedData,
        baseline: TrialConfig,
        ledger: Ledger,
        sampler: Sampler,
        scheduler: Scheduler,
        *,
        requirements: tuple[str, ...],
        now_ms: Callable[[], int],
        notify: Callable[[], None],
        champion: Callable[[], tuple[Champion | None, str] | None] = lambda: (None, ""),
        store: TrialStore | None = None,
        concurrent: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares a new study, which the ledger knows already.

        Args:
            name: of the study.
            settings: what to do.
            data: with the test split still locked.
            baseline: the space's default configuration.
            ledger: committed to before anything else.
            sampler: proposes for the search.
            scheduler: stops weak trials of the search.
            requirements: of the shipped model.
            now_ms: the clock.
            notify: called after each change; must not block.
            champion: gives the model that production uses, once finalists are to be chosen, and
                what stands in the way of comparing with it, if anything; None: ask again later.
            store: keeps checkpoints and models; in memory where it is left out.
            concurrent: how many trials run at once: what is left of a time budget depends on it.
            clock: seconds that only grow, from anywhere.
        """
        self._name, self._settings, self._data = name, settings, data
        self._baseline, self._ledger = baseline, ledger
        self._sampler, self._scheduler = sampler, scheduler
        self._requirements, self._now_ms, self._notify = requirements, now_ms, notify
        self._find_champion = champion
        self.champion: Champion | None = None
        self.champion_note = ""
        self._timing = self._timed = False
        self._costed: frozenset[str] = frozenset()
        self.timing_failure: str | None = None
        self._numbers = itertools.count()
        self._store: TrialStore = store or MemoryStore()
        self._proposed = 0
        self._again: list[Assignment] = []
        self._decided: set[tuple[int, int]] = set()
        self._known_runs: set[tuple[str, int]] = set()
        self._crashes: Counter[Hashable] = Counter()
        self._later: list[Job] = []
        self._limits, self._budget = Limits(settings, clock), Budget(settings, concurrent, clock)
        self._open: dict[int, Assignment] = {}
        self._ended: list[_Ended] = []
        self._totals: dict[int, TrialTotals] = {}
        self._last_epochs: dict[int, int] = {}
        self._search_closed = False
        self._queue: list[Assignment] = []
        self._confirming: list[TrialConfig] = []
        self._finalists_chosen = False
        self._models: dict[str, _Kept] = {}
        self._inspection: Inspection | None = None
        self._finished = False
        self.recommendation: Recommendation | None = None
        self.refusal: ConstraintsUnmet | None = None
        self.verdict: Verdict | None = None
        self.package = b""
        self.shipped: Assignment | None = None
        self.inspected: Inspected | None = None
        self.inspection_failure: str | None = "it was interrupted"
        confirms = (settings.finalists + 1) * settings.confirm_seeds if settings.finalists else 0
        self.progress = Progress(settings.trials, confirms)

    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._finished

    def is_settled(self) -> bool:
        """Whether the outcome stands, even if figures of it are still to come."""
        return self._finished or self.verdict is not None

    def next_job(self) -> Job | None:
        """The next trial, or the examination once confirmation is over; None while to wait."""
        self._cut_if_used_up()
        self._choose_finalists()
        job = self._next_again() or self._next_search() or self._next_confirmation()
        if job is None:
            return (
                self._next_later()
                or self._next_timing()
                or self._next_examination()
                or self._next_inspection()
            )
        if job.begun:
            self._ledger.reopen_trial(self._name, job.number)
        else:
            # What a trial of this number left that the ledger, put back from a copy, knows no more.
            self._store.drop_checkpoint(job.number)
            self._ledger.begin_trial(self._name, job, self._now_ms())
        self._open[job.number] = job
        self.progress.phase = (Phase.SEARCH if self._search_open() else job.phase).value
        self.progress.running = len(self._open)
        self._notify()
        return job

    def on_start(self, job: Job) -> None:
        """A worker has taken this job up: its time begins."""
        if isinstance(job, Assignment):
            self._limits.start(job.number)

    def on_report(self, job: Job, report: WorkerReport) -> bool:
        """Records a report and decides whether its trial goes on."""
        if not isinstance(job, Assignment):
            self._take_answer(job, report)
            return False
        if job.number not in self._open:
            return False
        self._cut_if_used_up()
        self._record(job, report)
        decision = self._decide(job, report)
        if report.failure is not None:
            self._end(job, State.FAILED, report.failure)
        elif report.final:
            self._keep_model(job, report)
            self._end(job, State.COMPLETED)
        elif decision is not None and not decision.go_on:
            self._end(job, State.STOPPED, decision.reason, report.epochs[-1].epoch)
        else:
            self._end_if_time_is_up(job)
            self._notify()
        if report.checkpoint is not None and job.number in self._open:
            # After the rung's decision: that there is one tells that the trial was to go on.
            self._store.save_checkpoint(job.number, report.epochs[-1].epoch, report.checkpoint)
        return job.number in self._open

    def _take_answer(self, job: Job, report: WorkerReport) -> None:
        """Of what is no trial."""
        if isinstance(job, Timing):
            self._ledger.record_costs(self._name, report.timed)
            self._timed, self.timing_failure = True, report.failure
        elif isinstance(job, Examination):
            self._conclude(job, report)
        else:
            # Figures are welcome, but a study stands without them.
            self.inspected, self.inspection_failure = report.inspected, report.failure
            self._finished = True

    def _record(self, job: Assignment, report: WorkerReport) -> None:
        self._ledger.append(self._name, job.number, report)
        if report.totals is not None:
            self._totals[job.number] = report.totals
        # What was trained again since a checkpoint is known already.
        known = self._last_epochs.get(job.number, 0)
        fresh = [item for item in report.epochs if item.epoch > known]
        if fresh:
            self._last_epochs[job.number] = fresh[-1].epoch
            self._budget.note(job.number, fresh)
        if job.phase is Phase.SEARCH:
            self._sampler.report(job.number, fresh)

    def on_crash(self, job: Job, reason: str, *, retry: bool = True) -> None:
        """Records that a worker died with its job, which is handed out again up to `retries` times.

        Not where `retry` is false, because it would end in the same way.
        """
        if not isinstance(job, Assignment):
            self._crashed_with(job, reason, again=self._may_repeat(type(job).__name__) and retry)
        elif job.number not in self._open:
            return
        elif job.phase is Phase.SEARCH and self._budget.is_cut():
            self._end(job, State.STOPPED, self._budget.reason)
        elif retry and self._may_repeat(job.number):
            self._limits.pause(job.number)
            del self._open[job.number]
            self.progress.running = len(self._open)
            self._again.append(self._begun(job))
        else:
            self._end(job, State.FAILED, reason)

    def _may_repeat(self, job: Hashable) -> bool:
        self._crashes[job] += 1
        return self._crashes[job] <= self._settings.retries

    def _crashed_with(self, job: Job, reason: str, *, again: bool) -> None:
        """Of what is no trial, only the examination is needed for a verdict."""
        if again:
            self._later.append(job)
        elif isinstance(job, Timing):
            self._timed, self.timing_failure = True, reason
        elif isinstance(job, Examination):
            raise StudyFailed(f"The examination on the test split failed: {reason}.")
        else:
            self.inspection_failure, self._finished = reason, True

    def _next_later(self) -> Job | None:
        return self._later.pop(0) if self._later else None

    def interrupt(self) -> float:
        """Takes note that the study is to stop: for how many seconds trials may still go on."""
        self.progress.phase = (
            f"stopping: up to {GRACE_SECONDS:.0f} s for the next rung (Ctrl-C again: at once)"
        )
        self._notify()
        return GRACE_SECONDS

    # Limits

    def give_up_overdue(self) -> list[Job]:
        """Ends the trials whose time is up and whose workers say nothing: these are given up."""
        self._cut_if_used_up()
        late: list[Job] = []
        for job in list(self._open.values()):
            if self._limits.is_over_time(job.number, PATIENCE_SECONDS):
                reason = f"{self._timeout_reason}; its process sent no report and was replaced"
                self._end(job, State.FAILED, reason)
                late.append(job)
            elif job.phase is Phase.SEARCH and self._budget.is_cut(PATIENCE_SECONDS):
                self._end(job, State.STOPPED, self._budget.reason)
                late.append(job)
        return late

    def _end_if_time_is_up(self, job: Assignment) -> None:
        if self._limits.is_over_time(job.number):
            self._end(job, State.FAILED, self._timeout_reason)
        elif job.phase is Phase.SEARCH and self._budget.is_cut():
            self._end(job, State.STOPPED, self._budget.reason)

    @property
    def _timeout_reason(self) -> str:
        return f"it took longer than --trial-timeout {self._settings.trial_timeout:g} s"

    def _cut_if_used_up(self) -> None:
        """Ends the search, once what is left of the budget is needed for the confirmation."""
        # A search that an earlier process ended is not closed yet.
        closed = self._search_closed or self._proposed >= self._settings.trials
        over = self._finalists_chosen or (closed and not self._search_open())
        if not over and not self._budget.is_cut() and self._budget.is_used_up():
            self._cut()

    def _cut(self) -> None:
        """No more trials are begun; those that run end with their next report."""
        self._budget.cut()
        self._record_cut()
        self._search_closed = True
        self.progress.search_total = self._proposed
        waiting = [job for job in self._again if job.phase is Phase.SEARCH]
        self._again = [job for job in self._again if job not in waiting]
        self._open |= {job.number: job for job in waiting}
        for job in waiting:
            self._end(job, State.STOPPED, self._budget.reason)
        self._notify()

    def _record_cut(self) -> None:
        """For whoever takes the study up again; an earlier cut that it is past is forgotten."""
        told = self._told()
        if self._budget.is_cut() or told.get("cut"):
            self._ledger.set_outcome(self._name, {**told, **self._cut_told()})

    def _cut_told(self) -> dict[str, Any]:
        return self._budget.told(self._proposed, self._search_reasons())

    def _search_reasons(self) -> list[str | None]:
        return [ended.reason for ended in self._of_phase(Phase.SEARCH)]

    def _told(self) -> dict[str, Any]:
        """What the ledger keeps of the study's outcome so far."""
        study = self._ledger.study(self._name)
        return dict((study.outcome if study else None) or {})

    def _keep_back(self) -> None:
        """Of the budget, what confirmation will take, from what the best trials took."""
        if not self._budget.is_limited:
            return
        leaders = self._leaders()
        seconds = [self._budget.whole_run(e.job, e.state, e.totals) for e in leaders]
        self._budget.keep_back(seconds, self._runs_to_come([e.job.config for e in leaders]))

    def _runs_to_come(self, finalists: Sequence[TrialConfig]) -> int:
        """How many runs are still to be confirmed, also where there may be a champion."""
        configs, found = {*finalists, self._baseline, *self._confirmed()}, self._find_champion()
        champion, trouble = found or (None, "it is not known yet")
        if champion is not None and champion.config is not None:
            configs.add(champion.config)
        done = {(e.job.config.config_id, e.job.seed) for e in self._of_phase(Phase.CONFIRM)}
        seeds = [self._confirm_seed(index) for index in range(self._settings.confirm_seeds)]
        left = sum((c.config_id, seed) not in done for c in configs for seed in seeds)
        return left + (len(seeds) if champion is None and trouble else 0)

    @property
    def cut(self) -> str:
        """What the time budget did to the search, in a sentence; "" where it did nothing."""
        return self._budget.said(self._proposed, self._search_reasons())

    def importances(self) -> dict[str, float]:
        """How much each parameter of the space decided, as fractions, largest first."""
        return self._sampler.importances()

    def close_open_trials(self, reason: str) -> None:
        """Records the trials that have not ended as interrupted, when a study breaks off."""
        for number in [*self._open, *(job.number for job in self._again)]:
            self._ledger.end_trial(self._name, number, State.INTERRUPTED, self._now_ms(), reason)
        self._open.clear()
        self._again.clear()

    # Going on after an interruption

    def restore(self) -> None:
        """Takes over what the ledger holds of the study, as if it had never been interrupted.

        To be called once, before the first job is handed out. Trials that had not ended are handed
        out again, each with its last checkpoint.
        """
        trials = self._ledger.trials(self._name)
        self._numbers = itertools.count(max((t.number for t in trials), default=-1) + 1)
        for trial in trials:
            self._restore_trial(trial, self._ledger.epochs(self._name, trial.number))
        self.progress.rungs = self._scheduler.counts()
        self.progress.search_total = max(self._settings.trials, self._proposed)
        self._keep_back()
        self._budget.restore_cut(self._told(), self._search_reasons())
        costs = self._ledger.costs(self._name)
        self._costed = frozenset(costs)

    def _restore_trial(self, trial: TrialRecord, epochs: Sequence[EpochReport]) -> None:
        number, has_ended = trial.number, trial.state.has_ended
        if epochs:
            self._last_epochs[number] = epochs[-1].epoch
        self._limits.restore(number, epochs)
        self._budget.restore(trial, epochs)
        kept, checkpoint = 0, b""
        if has_ended:
            self._store.drop_checkpoint(number)  # the process may have died before it did
        else:
            kept, checkpoint = self._store.load_checkpoint(number)
        if kept > self._last_epochs.get(number, 0):
            # Every checkpoint follows its report: the ledger is a copy from before it.
            kept, checkpoint = 0, b""
            self._store.drop_checkpoint(number)
        job = self._assignment_of(trial, checkpoint)
        if job.phase is Phase.SEARCH:
            self._restore_search(job, trial, epochs, job.max_epochs if has_ended else kept)
        elif not self._restore_confirmation(job, trial):
            return
        if has_ended:
            self._count(_Ended(job, trial.state, trial.totals, trial.reason, trial.rung))
            return
        self._again.append(job)
        if trial.totals is not None:
            self._totals[number] = trial.totals

    def _restore_search(
        self, job: Assignment, trial: TrialRecord, epochs: Sequence[EpochReport], decided: int
    ) -> None:
        """Fills sampler and scheduler; up to which epoch rungs were decided on is `decided`."""
        self._proposed += 1
        self._sampler.restore(trial, epochs)
        for item in epochs:
            # At its last rung, a trial that has not ended was perhaps not decided on yet.
            went_on = item.epoch < epochs[-1].epoch or item.epoch <= decided
            if item.epoch in job.rungs and went_on:
                self._scheduler.decide(trial.number, item.epoch, item.val_accuracy)
                self._decided.add((trial.number, item.epoch))

    def _restore_confirmation(self, job: Assignment, trial: TrialRecord) -> bool:
        """Whether this run counts, and is not trained anew.

        That is one whose model is lost, and one of the baseline that failed: without the baseline
        nothing that was confirmed counts. Another one that failed stays failed.
        """
        if trial.state is State.FAILED and job.config == self._baseline:
            return False
        if trial.state is State.COMPLETED and trial.totals is not None:
            model = self._store.load_model(trial.number)
            if model is None:
                return False
            self._keep(job, trial.totals, model)
        self._known_runs.add((job.config.config_id, job.seed))
        return True

    def _assignment_of(self, trial: TrialRecord, checkpoint: bytes) -> Assignment:
        rungs = self._scheduler.rungs(trial.number) if trial.phase is Phase.SEARCH else ()
        return Assignment(
            number=trial.number,
            phase=trial.phase,
            config=trial.config,
            seed=trial.seed,
            split_seed=trial.split_seed,
            max_epochs=trial.max_epochs,
            rungs=tuple(rung for rung in rungs if rung < trial.max_epochs),
            validation_fraction=trial.validation_fraction,
            folds=trial.folds,
            keep_model=trial.phase is Phase.CONFIRM,
            proposal=trial.proposal,
            checkpoint=checkpoint,
            begun=True,
        )

    def _begun(self, job: Assignment) -> Assignment:
        """The same trial, to go on from its last checkpoint."""
        _, checkpoint = self._store.load_checkpoint(job.number)
        return replace(job, checkpoint=checkpoint, begun=True)

    def _next_again(self) -> Assignment | None:
        return self._again.pop(0) if self._again else None

    # Search

    def _next_search(self) -> Assignment | None:
        if self._search_closed:
            return None
        if self._proposed < self._settings.trials:
            number = next(self._numbers)
            try:
                config = self._sampler.ask(number)
            except ConfigError as error:
                raise StudyFailed(str(error)) from error
            if config is not None:
                self._proposed += 1
                epochs = self._epochs(config)
                return Assignment(
                    number=number,
                    phase=Phase.SEARCH,
                    config=config,
                    seed=derived_seed(self._settings.seed, "train", number),
                    split_seed=self._settings.seed,
                    max_epochs=epochs,
                    rungs=tuple(r for r in self._scheduler.rungs(number) if r < epochs),
                    folds=self._settings.folds,
                    proposal=self._sampler.proposal(number),
                )
        self._search_closed = True
        self.progress.search_total = self._proposed
        self._choose_finalists()
        return None

    def _epochs(self, config: TrialConfig) -> int:
        return config.epochs or self._settings.max_epochs

    def _decide(self, job: Assignment, report: WorkerReport) -> Decision | None:
        """What the scheduler says at a rung, on which it was not asked yet; None elsewhere.

        It is asked of a trial that ends just there too: others are compared with it.
        """
        last = report.epochs[-1] if report.epochs else None
        if last is None or last.epoch not in job.rungs:
            return None
        rung = (job.number, last.epoch)
        if rung in self._decided:
            return None
        self._decided.add(rung)
        decision = self._scheduler.decide(job.number, last.epoch, last.val_accuracy)
        self.progress.rungs = self._scheduler.counts()
        return decision

    def _end(
        self, job: Assignment, state: State, reason: str | None = None, rung: int | None = None
    ) -> None:
        self._ledger.end_trial(self._name, job.number, state, self._now_ms(), reason, rung)
        self._store.drop_checkpoint(job.number)
        self._limits.pause(job.number)
        totals = self._totals.pop(job.number, None)
        del self._open[job.number]
        self._count(_Ended(job, state, totals, reason, rung))
        self.progress.running = len(self._open)
        if job.phase is Phase.SEARCH:
            self._sampler.tell(job.number, state, totals.val_accuracy if totals else None)
            self._keep_back()
            self._give_up_if_hopeless()
            self._choose_finalists()
        elif state is State.FAILED and job.config == self._baseline:
            raise StudyFailed(
                f"The baseline failed in confirmation: {reason}. {self._way_out(job)}"
            )
        self._notify()

    def _count(self, ended: _Ended) -> None:
        """Takes note of a trial that has ended, now or in an earlier process."""
        self._ended.append(ended)
        progress, state = self.progress, ended.state
        if ended.job.phase is not Phase.SEARCH:
            progress.confirm_ended += 1
            return
        progress.search_ended[state] = progress.search_ended.get(state, 0) + 1
        if ended.totals is not None and state is not State.FAILED:
            progress.see(ended.job.number, ended.totals.val_accuracy)

    def _way_out(self, job: Assignment) -> str:
        """What helps where this run of the baseline failed, without which there is no verdict."""
        again, settings = f"`podium resume {self._name}", self._settings
        if settings.trial_timeout and self._limits.is_over_time(job.number):
            return f"{again} --trial-timeout {2 * settings.trial_timeout:g}` gives it more time."
        if self._crashes[job.number] > settings.retries:
            return f"{again} --retries {settings.retries + 3}` tries it more often."
        return (
            f"{again}` tries it once more; if it cannot be trained at all, begin another study "
            "with another baseline."
        )

    def _give_up_if_hopeless(self) -> None:
        ended = self._of_phase(Phase.SEARCH)
        over = self._search_closed and not self._search_open()
        enough = len(ended) >= HOPELESS_AFTER or over
        if ended and enough and all(e.state is State.FAILED for e in ended):
            reasons = [e.reason or "unknown" for e in ended]
            common = max(set(reasons), key=reasons.count)
            raise StudyFailed(
                f"The first {len(ended)} trials all failed; {reasons.count(common)} of them: "
                f"{common}"
            )

    def _of_phase(self, phase: Phase) -> list[_Ended]:
        return [e for e in self._ended if e.job.phase is phase]

    def _search_open(self) -> bool:
        pending = [*self._open.values(), *self._again]
        return any(job.phase is Phase.SEARCH for job in pending)

    # Confirmation

    def _choose_finalists(self) -> None:
        """Once the last trial of the search has ended, and it is known who the champion is."""
        if not self._search_closed or self._search_open() or self._finalists_chosen:
            return
        self._give_up_if_hopeless()
        if not self._settings.finalists:
            self._record_cut()
            self._finalists_chosen = self._finished = True
            return
        found = self._find_champion()
        if found is None:
            return
        self._record_cut()
        self._finalists_chosen = True
        self.champion, self.champion_note = found
        chosen = self._leaders()
        # The longest first, so that no worker waits long for the last run.
        chosen.sort(key=lambda e: e.totals.wall_seconds if e.totals else 0.0, reverse=True)
        finalists = [e.job.config for e in chosen]
        rivals = [self._baseline]
        if self.champion is not None and self.champion.config is not None:
            rivals.append(self.champion.config)
        # Those of an earlier choice of finalists, too, have as many seeds as there are now.
        rivals += self._confirmed()
        finalists += [c for c in dict.fromkeys(rivals) if c not in self._confirming + finalists]
        for config in finalists:
            self._queue_confirmation(config)
        waiting = [*self._open.values(), *self._again, *self._queue]
        # Those of an earlier choice of finalists count with them.
        self.progress.confirm_total = self.progress.confirm_ended + len(waiting)

    def _confirmed(self) -> list[TrialConfig]:
        """The configurations whose confirmation was begun so far."""
        ended = [e.job for e in self._of_phase(Phase.CONFIRM)]
        runs = [*ended, *self._open.values(), *self._again]
        return list(dict.fromkeys(job.config for job in runs if job.phase is Phase.CONFIRM))

    def _leaders(self) -> list[_Ended]:
        """The best trials so far, one for each configuration, as many as there are finalists."""
        # Who missed fewer rungs comes first: the others were overtaken there on equal terms.
        ranked = sorted(
            (e for e in self._of_phase(Phase.SEARCH) if self._may_be_finalist(e)),
            key=lambda e: (
                -self._rungs_missed(e),
                e.totals.val_accuracy if e.totals else 0.0,
                -e.job.number,
            ),
            reverse=True,
        )
        best: dict[str, _Ended] = {}
        for ended in ranked:
            best.setdefault(ended.job.config.config_id, ended)
        best.pop(self._baseline.config_id, None)
        return list(itertools.islice(best.values(), self._settings.finalists))

    def _may_be_finalist(self, ended: _Ended) -> bool:
        """Whether it ended well, and is not too large: the one constraint that is known by now."""
        most = self._settings.max_params
        if ended.state is State.FAILED or ended.totals is None:
            return False
        return most is None or ended.totals.parameters <= most

    def _rungs_missed(self, ended: _Ended) -> int:
        """How many rungs of its own bracket a trial did not pass; none where patience ended it."""
        job, last = ended.job, self._last_epochs.get(ended.job.number, 0)
        if ended.state is State.COMPLETED and last < job.max_epochs:
            return 0
        missed = sum(rung > last for rung in self._scheduler.rungs(job.number))
        return missed + (ended.rung is not None)

    def _queue_confirmation(self, config: TrialConfig) -> None:
        self._confirming.append(config)
        for index in range(self._settings.confirm_seeds):
            seed = self._confirm_seed(index)
            if (config.config_id, seed) in self._known_runs:
                continue
            self._queue.append(
                Assignment(
                    number=next(self._numbers),
                    phase=Phase.CONFIRM,
                    config=config,
                    seed=seed,
                    split_seed=derived_seed(self._settings.seed, "confirm split", index),
                    max_epochs=self._epochs(config),
                    rungs=(),
                    keep_model=True,
                )
            )

    def _confirm_seed(self, index: int) -> int:
        return derived_seed(self._settings.seed, "confirm", index)

    def _next_confirmation(self) -> Assignment | None:
        if not self._settings.finalists:
            return None
        if not self._confirming:
            # Certain to be wanted, so it fills the wait for the last trials of the search.
            self._queue_confirmation(self._baseline)
        return self._queue.pop(0) if self._queue else None

    def _keep_model(self, job: Assignment, report: WorkerReport) -> None:
        """Of a configuration's runs, the one with the best validation accuracy is shipped."""
        if report.model is None or report.totals is None:
            return
        self._store.save_model(job.number, report.model)
        self._keep(job, report.totals, report.model)

    def _keep(self, job: Assignment, totals: TrialTotals, model: bytes) -> None:
        kept, accuracy = self._models.get(job.config.config_id), totals.val_accuracy
        if kept is None or accuracy > kept.accuracy:
            self._models[job.config.config_id] = _Kept(accuracy, job, totals.best_epoch, model)

    # Verdict

    def _is_confirmed(self) -> bool:
        waiting = self._open or self._queue or self._again or not self._finalists_chosen
        return not waiting and not self._finished and self.recommendation is None

    def _next_timing(self) -> Timing | None:
        """Only once no training is under way, so that nothing of the study disturbs it."""
        if not self._is_confirmed() or self._timed or self._timing:
            return None
        if set(self._models) <= self._costed:
            self._timed = True  # in an earlier process
            return None
        self._timing = True
        self.progress.phase = "timing"
        models = {config_id: kept.model for config_id, kept in self._models.items()}
        return Timing(models, self._data.training.image_shape)

    def _next_examination(self) -> Examination | None:
        if not self._is_confirmed() or not self._timed:
            return None
        try:
            made = self._recommend()
        except ConstraintsUnmet as refusal:
            # All that was trained stands, and the test split stays locked.
            refusal.left_out = left_out(self._ledger.trials(self._name))
            self.refusal, self._finished = refusal, True
            refused = {"resume_with": loosened(refusal), "champion_id": self._champion_id}
            self._ledger.set_outcome(self._name, {**self._told(), "refused": refused})
            return None
        except StudyFailed as error:
            if not self.timing_failure:
                raise
            raise StudyFailed(
                f"{error} It was to be measured, but {self.timing_failure}. `podium resume "
                f"{self._name}` measures again, and trains nothing."
            ) from error
        self.recommendation = replace(
            made,
            summary=f"{made.summary} {self.cut}".rstrip(),
            left_out=left_out(self._ledger.trials(self._name)),
        )
        self.progress.phase = "verdict"
        champion, winner = self.champion, made.winner.config.config_id
        images, self._test_labels = self._data.test.open(
            self._name, self._reason_to_open(winner), self._now_ms(), self._record_opening
        )
        self._notify()
        models = {"recommended": self._models[winner].model}
        if not self.recommendation.winner.is_baseline:
            models["baseline"] = self._models[self._baseline.config_id].model
        if champion is not None and self._is_comparable(champion):
            models["champion"] = champion.model or b""
        return Examination(
            models=models,
            images=images,
            ship="recommended",
            dispensable=("champion",),
            requirements=self._requirements,
        )

    def _recommend(self) -> Recommendation:
        """The choice; a model that is the champion itself is compared with what was that before.

        Raises:
            StudyFailed: nothing can be recommended.
        """
        made = self._chosen()
        champion, shipped = self.champion, self._models[made.winner.config.config_id].job
        own = champion is not None and champion.study == self._name
        if champion is not None and own and champion.trial == shipped.number:
            self.champion = champion.before
            made = self._chosen()
        return made

    def _chosen(self) -> Recommendation:
        candidates = confirmed_candidates(
            self._ledger.trials(self._name),
            self._baseline.config_id,
            self._champion_id,
            self._ledger.costs(self._name),
        )
        # Finalists of an earlier choice may have lost theirs: they could not be shipped.
        candidates = [c for c in candidates if c.config.config_id in self._models]
        return explained(candidates, self._settings.criteria, VALIDATION_FRACTION)

    @property
    def _champion_id(self) -> str:
        champion = self.champion
        return champion.config.config_id if champion and champion.config else ""

    def _reason_to_open(self, winner: str) -> str:
        """Another decision, after more trials, is another look; what was told already is none."""
        told, version = self._told(), self.champion.version if self.champion else None
        if "verdict" not in told:
            return VERDICT
        number = self._models[winner].job.number
        against = (told.get("champion") or {}).get("version")
        if (told.get("recommended"), told.get("trial"), against) == (winner, number, version):
            return self._latest_reason() or VERDICT
        reason = f"{VERDICT}, for {winner} of trial {number}"
        return reason + (f" against version {version}" if version else "")

    def _record_opening(self, opening: Opening) -> None:
        """Once for a verdict: an interruption before it was told does not make a second look."""
        if opening.reason != self._latest_reason():
            self._ledger.record_opening(opening)

    def _latest_reason(self) -> str | None:
        """For which the study itself opened the test split last."""
        openings = self._ledger.openings(self._data.test.fingerprint)
        return next((o.reason for o in reversed(openings) if o.study == self._name), None)

    def _is_comparable(self, champion: Champion) -> bool:
        """Whether no image of this test split can have taught it: it was judged on the same."""
        same = champion.test_fingerprint == self._data.test.fingerprint
        if champion.model is None:
            self.champion_note = f"the model of {champion.uri} could not be read"
        elif not same:
            self.champion_note = (
                f"{champion.uri} was judged on another test split, and may have been trained on "
                "this one"
            )
        return same and champion.model is not None

    def _conclude(self, job: Examination, report: WorkerReport) -> None:
        if report.examined is None or self.recommendation is None:
            raise StudyFailed(f"The examination on the test split failed: {report.failure}")
        self.package = report.examined.package
        if "champion" in report.examined.failures:
            reason = report.examined.failures["champion"]
            self.champion_note = f"its model could not be loaded here: {reason}"
        names = {"baseline": self._baseline.config_id}
        if self.champion is not None:
            names["champion"] = self.champion.uri
        self.verdict = judge(
            self.recommendation,
            report.examined.probabilities,
            self._test_labels,
            openings=len(self._ledger.openings(self._data.test.fingerprint)),
            data=self._data.training.name,
            rivals={k: name for k, name in names.items() if k in report.examined.probabilities},
            champion_note=self.champion_note,
        )
        kept = self._models[self.recommendation.winner.config.config_id]
        self.shipped = kept.job
        result = TestResult(kept.epoch, self.verdict.tested.measures)
        self._ledger.record_tests(self._name, kept.job.number, [result])
        self._ledger.set_outcome(self._name, self.outcome())
        self._inspection = Inspection(kept.model, kept.job.split_seed)
        self._notify()

    def outcome(self) -> dict[str, Any]:
        """What the ledger keeps of the verdict, as JSON values; empty where there is none."""
        recommendation, verdict, champion = self.recommendation, self.verdict, self.champion
        if recommendation is None or verdict is None:
            return {}
        winner = recommendation.winner
        found = None
        if champion is not None:
            found = {
                "name": champion.name,
                "version": champion.version,
                "study": champion.study,
                "config_id": champion.config.config_id if champion.config else "",
                "same_test": champion.test_fingerprint == self._data.test.fingerprint,
                "compared": verdict.against("champion") is not None,
                "trouble": self.champion_note or None,
            }
        return {
            "recommended": winner.config.config_id,
            "policy": recommendation.policy,
            "trial": self.shipped.number if self.shipped else None,
            "summary": recommendation.summary,
            **self._cut_told(),
            "verdict": asdict(verdict),
            "costs": asdict(winner.costs) if winner.costs else None,
            "champion": found,
            "champion_note": self.champion_note,
        }

    def _next_inspection(self) -> Inspection | None:
        job, self._inspection = self._inspection, None
        if job is not None:
            self.progress.phase = "looking into the chosen model"
            self._notify()
        return job
