"""Side by side: what the store manages against the limit, and against what people would use instead (README.md)."""

from agent_manager.bench.comparisons import COMPARISONS, Comparison
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.place import Place, prepared_place
from agent_manager.bench.scale import Scale
from agent_manager.bench.work import Bench

__all__ = ["COMPARISONS", "Bench", "Comparison", "Figure", "Place", "Scale", "Target", "prepared_place"]
