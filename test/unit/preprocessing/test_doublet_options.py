"""Options of doublets."""

import pytest

from preprocessing.options import PreprocessingOptions


def test_an_option_of_doublets_without_doublets_is_refused():
    with pytest.raises(ValueError, match="expected_doublet_rate has no effect without doublets"):
        PreprocessingOptions(expected_doublet_rate=0.2).check()
    PreprocessingOptions(expected_doublet_rate=0.2, doublets=True).check()
