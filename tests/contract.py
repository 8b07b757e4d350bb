"""What other programs may rely on finding in `summary.json`."""

SUMMARY_KEYS = {
    "status",
    "mode",
    "mechanism",
    "seed",
    "num_partitions",
    "num_rounds",
    "accuracy",
    "rationale_validity",
    "privacy",
    "traffic",
    "timing",
    "failures",
    "git_commit",
    "versions",
}
