"""Own keys: ``keymap.toml`` says for an action of the table which keys do it; footer and help show those."""

from __future__ import annotations

from difflib import get_close_matches

from flowdeck_devtools.core.preferences import read_keys
from flowdeck_devtools.tui.actions import ACTIONS, use_keys

__all__ = ["load_keymap"]


def load_keymap() -> tuple[dict[str, str], list[str]]:
    """The keys in force and what is wrong in the file, in words. What is wrong is left out, the rest holds."""
    wanted, problem = read_keys()
    problems = [problem] if problem else []
    known = {action.id: action for action in ACTIONS}
    taken: dict[tuple[str, str], list[str]] = {}
    for action in ACTIONS:
        for key in wanted.get(action.id, action.keys).split(","):
            taken.setdefault((action.scope, key.strip()), []).append(action.id)
    keys: dict[str, str] = {}
    for name, text in wanted.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            problems.append(f"keymap.toml: no action {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
            continue
        chosen = [key.strip() for key in text.split(",") if key.strip()]
        holders = [one for key in chosen for one in taken[known[name].scope, key]]
        clash = next((one for one in holders if one != name), None)
        if not chosen or clash is not None:
            problems.append(f"keymap.toml: {name} = {text!r}: " + (f"{clash} has that key" if clash else "no key"))
            continue
        keys[name] = ",".join(chosen)
    use_keys(keys)
    return keys, problems
