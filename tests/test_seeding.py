"""Seeds depend on everything they are derived from, and on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from fedcot.seeding import derive_seed, numpy_generator

PATHS = st.lists(st.one_of(st.integers(0, 50), st.text(max_size=5)), max_size=4)


@given(seed=st.integers(0, 2**62), path=PATHS)
def test_seeds_repeat_and_fit_63_bits(seed: int, path: list[int | str]) -> None:
    assert derive_seed(seed, *path) == derive_seed(seed, *path)
    assert 0 <= derive_seed(seed, *path) < 2**63


@given(seed=st.integers(0, 2**62), path=PATHS, other=PATHS)
def test_other_paths_and_seeds_give_other_seeds(
    seed: int, path: list[int | str], other: list[int | str]
) -> None:
    assert derive_seed(seed, *path) != derive_seed(seed + 1, *path)
    if path != other:
        assert derive_seed(seed, *path) != derive_seed(seed, *other)


def test_a_number_and_its_text_are_not_the_same_name() -> None:
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab")


def test_generators_draw_the_same_from_the_same_path() -> None:
    first, again = (numpy_generator(3, "sampling", 2) for _ in range(2))
    assert first.integers(1 << 60) == again.integers(1 << 60)
