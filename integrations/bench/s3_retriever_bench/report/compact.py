"""JSON that people can read and that does not run to thousands of lines."""

from __future__ import annotations

import json
from typing import Any


def compact(value: Any, depth: int = 0) -> str:
    """JSON with an object's members on lines of their own, and lists on one."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    indent = "  " * (depth + 1)
    members = [f"{indent}{json.dumps(key)}: {compact(v, depth + 1)}" for key, v in value.items()]
    return "{\n" + ",\n".join(members) + "\n" + "  " * depth + "}"
