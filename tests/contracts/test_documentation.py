"""The page on contracts shows what works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flowdeck.errors import ContractError

PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")


def test_the_contract_on_the_page_is_one() -> None:
    """Its input, stream and result are understood and enforced."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(blocks[0], "contracts.md", "exec"), names)
    flow = names["flow"]
    assert {name: flow.get_contract_metadata()[name]["label"] for name in ("initial_input", "stream")} == {
        "initial_input": "Order",
        "stream": "object",
    }
    flow.to(("put", lambda data: data.put_into_stream({"event_type": data.input.sku})))
    assert flow.start({"sku": "a", "count": 1}) == {}
    try:
        flow.start({"sku": "a", "count": 0})
    except ContractError as exc:
        assert exc.problems[0].startswith("initial_input.count: Input should be ")
    else:
        raise AssertionError("it was accepted")
