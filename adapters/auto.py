"""`strategy="auto"`: several strategies from one start; of all iterates the most trusted is kept.

No strategy is best everywhere, and how they rank on a target can only be guessed without labels.
The guess is that of starts and iterates, `adapters.selection.trust`: of nine criteria it picked
best among adaptations (`python -m benchmarks.selection_study`, benchmarks/LOG.md).
"""

from adapters.config import AUTO_TRIES, STRATEGIES
from adapters.run import Run, rate_of, take_steps


def learn_any(run: Run) -> None:
    """All steps of each strategy of `AUTO_TRIES` from the start; `notes["chosen"]` says whose won.

    History and last iterate are those of the chosen strategy. Where none is trusted more than the
    start, that is kept and the first strategy named.
    """
    chosen, ends, histories = AUTO_TRIES[0], {}, {}
    for name in AUTO_TRIES:
        method = STRATEGIES[name]
        assert method is not None, f"{name} takes no steps"
        run.go_back(run.started)
        run.rate, run.history, before = rate_of(run.config, name), [], run.best
        take_steps(run, method)
        ends[name], histories[name] = run.values(), run.history
        if run.best > before:
            chosen = name
    run.go_back(ends[chosen])
    run.history, run.notes["chosen"] = histories[chosen], chosen
    run.keep_best()
