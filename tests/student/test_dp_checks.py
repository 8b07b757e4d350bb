"""What a rounding or a strange student must not be able to do to a record's bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedcot.errors import FedcotError
from fedcot.student.base import TrainingSettings, adapted
from fedcot.student.noise import ClippedSum
from fedcot.student.record_gradients import RecordGradients
from tests.tiny import tiny_base

LORA = TrainingSettings(lora_r=4, lora_alpha=8)


@given(arrays(np.float64, 5, elements=st.floats(-3.0, 3.0)))
def test_rounding_to_the_grid_never_makes_a_vector_longer(steps):
    total = ClippedSum(5, 1.0)
    total.add(steps * total.step)
    assert (abs(total.value()) <= abs(steps) * total.step).all()


def test_a_record_that_moves_the_gradient_of_another_is_refused(monkeypatch):
    """Its own gradient is right, so that only the other's tells."""
    with (
        adapted(tiny_base(), LORA, seed=0) as model,
        RecordGradients(model.train(), pad=0) as gradients,
    ):
        gradients.check()
        take = RecordGradients._taken

        def copied(self, parameter, rows):
            found = take(self, parameter, rows)
            return found.sum(0, keepdim=True).expand_as(found)

        monkeypatch.setattr(RecordGradients, "_taken", copied)
        with pytest.raises(FedcotError, match="wrong for this student"):
            gradients.check()
