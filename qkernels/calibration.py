"""Calibration: what the values of a model are like, and the ranges that follow.

Observers look at the activations of some batches and give the scales and zero points of static quantization
(`qkernels.static`); `InputStatistics` are what calibrated quantization of weights asks for
(``quantize_weight(calibration=...)``). All of them stream (their memory does not grow with what they have seen), can be
saved (`to_state`, pickle) and merged, so that calibration can be split over processes or machines.

* Per tensor, ``axis=None``: what static quantization of activations takes.
* Per channel, ``axis=-1`` of activations [..., K]; ``axis=0`` of weights [N, K].
* Per token, ``axis=-2`` of activations [..., T, K]: a scale for each of T positions, and T is the same in all batches.
  Where tokens come in any number, each takes its scale from itself: `qkernels.dynamic_quantize`.
"""

from .histogram_observer import HistogramObserver
from .observers import MinMaxObserver, MovingAverageObserver
from .statistics import InputStatistics

__all__ = ["HistogramObserver", "InputStatistics", "MinMaxObserver", "MovingAverageObserver"]
