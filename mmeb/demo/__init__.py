"""A small synthetic MMEB, drawn from a seed: all 36 tasks, nothing to download."""

from mmeb.demo.folder import demo_folder
from mmeb.demo.writer import DEMO_MARKER, VERSION, write_demo

__all__ = ["DEMO_MARKER", "VERSION", "demo_folder", "write_demo"]
