"""FLOPs: the analytic ledger that is the currency, and the counter that audits it."""
