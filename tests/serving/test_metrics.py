"""What is counted, as Prometheus reads it."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="the extra 'serve' is not installed")

from prometheus_client.parser import text_string_to_metric_families

from pneumolib.serving.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {f"{s.name}{sorted(s.labels.values())}": s.value for family in families for s in family.samples}


def test_several_servers_count_by_themselves() -> None:
    first, second = (Metrics(name="a", version="b", sha256="c") for _ in range(2))
    first.problems.labels("queue_full").inc()
    first.queue_depth.set(3)
    assert samples(first)["pneumolib_problems_total['queue_full']"] == 1
    assert samples(first)["pneumolib_queue_depth[]"] == 3
    assert "pneumolib_problems_total['queue_full']" not in samples(second)
    assert samples(second)["pneumolib_queue_depth[]"] == 0


def test_the_detector_that_answers_is_named() -> None:
    assert samples(Metrics(name="n", version="0", sha256="f"))["pneumolib_model['0', 'f', 'n']"] == 1


def test_all_have_a_name_of_the_projects_and_a_text() -> None:
    for family in text_string_to_metric_families(Metrics(name="", version="", sha256="").text().decode()):
        assert family.name.startswith("pneumolib_")
        assert family.documentation
