"""Calibration: choosing the recipe that suits a host's codebook and your documents."""

from s3_retriever.calibration.calibrate import Calibration, Trial, calibrate, calibrate_samples
from s3_retriever.calibration.evaluation import Gain
from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample, questions_from
from s3_retriever.calibration.tap_choice import LayerScore, TapChoice, choose_taps

__all__ = [
    "Calibration",
    "Gain",
    "GoldSpan",
    "LabelledQuestion",
    "LayerScore",
    "Sample",
    "TapChoice",
    "Trial",
    "calibrate",
    "calibrate_samples",
    "choose_taps",
    "questions_from",
]
