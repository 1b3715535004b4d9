"""The statistics of verdicts, without dependencies: intervals, paired tests, power, repeated rounds, agreement.

The unit is the case: rounds of one case are not independent, so they count as its mean. Tests are paired, because both
sessions ask the same cases. Whatever draws random numbers takes a seed and gives the same answer twice. Everything is
checked against SciPy in the tests, which the package itself does not need. Source: the evals reference, §3.8.

    intervals     Wilson, Jeffreys, cluster bootstrap over cases
    paired        exact McNemar, sign-flip permutation, the interval of a paired difference, equivalence
    several       Fisher's exact test, Holm's correction
    repeated      pass@k and pass^k
    power         the smallest drop a suite can see
    latency       ratio of quantiles with its interval
    agreement     Cohen's kappa, Krippendorff's alpha
"""
