"""Every loss of the catalogue as a parameter."""

from __future__ import annotations

import pytest
from loss_samples import NAMES


@pytest.fixture(params=NAMES)
def name(request):
    return request.param
