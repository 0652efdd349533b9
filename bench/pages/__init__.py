"""Write boards as pages: `leaderboard.md` and `report.html`, from templates. Imports no torch."""

from bench.pages.leaderboard import render_leaderboard
from bench.pages.report import render_report

__all__ = ["render_leaderboard", "render_report"]
