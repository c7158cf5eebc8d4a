"""Calibration: choosing the recipe that suits a host's codebook and your documents."""

from s3_retriever.calibration.calibrate import Calibration, Trial, calibrate, calibrate_samples
from s3_retriever.calibration.evaluation import Gain
from s3_retriever.calibration.questions import GoldSpan, LabelledQuestion, Sample, questions_from

__all__ = [
    "Calibration",
    "Gain",
    "GoldSpan",
    "LabelledQuestion",
    "Sample",
    "Trial",
    "calibrate",
    "calibrate_samples",
    "questions_from",
]
