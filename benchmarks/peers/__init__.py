"""atto in the harness that runs other frameworks on the same workload."""
