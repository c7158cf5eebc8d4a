"""Calibration: the recipe that suits a host, its codebook and one's own documents."""

from s3_retriever.calibration.calibrate import Calibration, calibrate, calibrate_samples
from s3_retriever.calibration.climb import Trial
from s3_retriever.calibration.cloze import questions_from
from s3_retriever.calibration.gain import Gain
from s3_retriever.calibration.sample import Evidence, LabelledQuestion, Sample

__all__ = [
    "Calibration",
    "Evidence",
    "Gain",
    "LabelledQuestion",
    "Sample",
    "Trial",
    "calibrate",
    "calibrate_samples",
    "questions_from",
]
