"""Count FLOPs: the analytic ledger, which is the currency, and the counter, which audits it."""
