"""Harmony: integrate the batches of an embedding (Korsunsky 2019; Harmony 2)."""

from .algorithm import Harmonized, harmonize
from .api import HarmonyResult, harmony_integrate, run_harmony

__all__ = ["Harmonized", "HarmonyResult", "harmonize", "harmony_integrate", "run_harmony"]
