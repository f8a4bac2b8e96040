"""The learning rate over a run."""

from __future__ import annotations

import math

from models.train_options import TrainOptions

# An exponential of no given decay falls by exp(-5), to 0.7% of its way, over the run.
_WHOLE_DECAY = 5.0


def rate_factor(step: int, done: float, options: TrainOptions) -> float:
    """Learning rate over its maximum: linear warm-up by steps, times the schedule.

    Parameters
    ----------
    step : int
        Steps made.
    done : float
        Share of the run that is done, 0..1; of a run that is bounded in minutes, also by the clock.
    options : TrainOptions
        Schedule "cosine" falls to ``final_rate`` as half a cosine over ``done``; "step" is multiplied by
        ``step_factor`` at each milestone; "exponential" is that of YOLO-CIANNA,
        final + (1 - final) exp(-decay step); "constant" stays.
    """
    warm = min(1.0, (step + 1) / max(options.warm_up, 1))
    return warm * _falling(step, min(max(done, 0.0), 1.0), options)


def _falling(step: int, done: float, options: TrainOptions) -> float:
    if options.schedule == "constant":
        return 1.0
    if options.schedule == "step":
        return options.step_factor ** sum(done >= one for one in options.milestones)
    if options.schedule == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = math.exp(-_WHOLE_DECAY * done if options.decay is None else -options.decay * step)
    return options.final_rate + (1 - options.final_rate) * share
