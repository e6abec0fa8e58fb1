"""Measures of SAEs, one a file. They know arrays and the SAE; they load no data."""

from sae.metrics.monosemanticity import MonosemanticityMeter, monosemanticity

__all__ = ["MonosemanticityMeter", "monosemanticity"]
