from mmeb.leaderboard.entries import Board


def page(board: Board) -> str:
    return ""
