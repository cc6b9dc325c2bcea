"""The paper's claims and our own finding as tests on the scores, each with a verdict."""
