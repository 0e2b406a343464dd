"""Harmony: integrate the batches of an embedding (Korsunsky 2019; Harmony 2)."""

from integration.harmony.algorithm import Harmonized, harmonize
from integration.harmony.harmonypy_api import HarmonyResult, run_harmony
from integration.harmony.scanpy_api import harmony_integrate

__all__ = ["Harmonized", "HarmonyResult", "harmonize", "harmony_integrate", "run_harmony"]
