import pytest

from tests.methods.sampler import SamplerAdapter
from unstill.hooks import ADAPTERS


@pytest.fixture(autouse=True)
def known_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """`unstill.apply` knows the test pipeline."""
    monkeypatch.setitem(ADAPTERS, "Sampler", SamplerAdapter())
