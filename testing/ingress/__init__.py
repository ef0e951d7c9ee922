"""What every ingress provider must do, as checks that run against a cluster with a data plane: ours, and a stranger's.

No test framework is needed: `CHECKS` are functions that take a `Bench` and raise AssertionError. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_the_provider(check, bench):
        check(bench)
"""

from deployer.testing.ingress.bench import Bench, open_bench
from deployer.testing.ingress.checks import CHECKS

__all__ = ["CHECKS", "Bench", "open_bench"]
