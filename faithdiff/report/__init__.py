"""Tables, figures and verdicts, made from scores alone."""
