"""Harmony: integrate the batches of an embedding (Korsunsky 2019; Harmony 2)."""

from integration.harmony.algorithm import Harmonized, harmonize
from integration.harmony.api import HarmonyResult, harmony_integrate, run_harmony

__all__ = ["Harmonized", "HarmonyResult", "harmonize", "harmony_integrate", "run_harmony"]
