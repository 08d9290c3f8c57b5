"""Write a leaderboard's tables and page into a folder."""

from pathlib import Path

from mmeb.files import write_text
from mmeb.leaderboard.entries import Board
from mmeb.leaderboard.markdown import readme
from mmeb.leaderboard.page import page
from mmeb.leaderboard.render import table_csv


def build(board: Board, output: Path) -> list[Path]:
    """Write README.md, table.csv and index.html, and return their paths."""
    files = {"README.md": readme(board), "table.csv": table_csv(board), "index.html": page(board)}
    for name, text in files.items():
        write_text(output / name, text)
    return [output / name for name in files]
