import pytest

from fnqs.model_config import ModelConfig
from fnqs_train.chunks import MemoryConfig, choose_chunks


@pytest.mark.parametrize("number", [2, 8, 54, 256, 1024])
def test_every_size_has_room(number):
    chunks = choose_chunks(number, ModelConfig())
    assert min(chunks.energy, chunks.gradient) >= 1
    larger = choose_chunks(2 * number, ModelConfig())
    assert larger.energy <= chunks.energy
    assert larger.gradient <= chunks.gradient


def test_the_user_decides():
    chunks = choose_chunks(8, ModelConfig(), MemoryConfig(energy_walkers=3))
    assert chunks.energy == 3
    assert chunks.gradient == choose_chunks(8, ModelConfig()).gradient
