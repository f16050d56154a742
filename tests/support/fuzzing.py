"""Settings of the property tests by Hypothesis: the same examples each time, no clock, no files of its own."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

# The folder of a test is shared by its examples, which write the same files over and over.
_OURS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def examples(count: int) -> settings:
    """Return the settings of a test with that many examples."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=_OURS,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )
