from __future__ import annotations

import pytest

from flowdeck.events.redaction import MASK, add_secret_keys, is_secret_key, redact

SECRET = [
    "api_key", "apikey", "X-Api-Key", "OPENAI_API_KEY", "password", "db_password", "passwd", "pwd", "secret",
    "client_secret", "token", "access_token", "refresh-token", "Authorization", "Proxy-Authorization", "cookie",
    "Set-Cookie", "private_key", "aws_secret_access_key", "credentials", "githubToken", "API KEY", "passphrase",
]  # fmt: skip
OPEN = [
    "input_tokens", "output_tokens", "total_tokens", "max_tokens", "cached_tokens", "prompt_tokens", "tokens",
    "max_token", "next_token", "stop_token", "key", "keyword", "monkey", "author", "keys", "secretary", "passed",
    "tokenizer", "idempotency_key", "state_key", "", "cookies_accepted",
]  # fmt: skip


@pytest.mark.parametrize("key", SECRET)
def test_secret_keys_are_known_in_every_spelling(key: str) -> None:
    """Case and separators do not matter, and a compound ending in a listed name is secret."""
    assert is_secret_key(key)


@pytest.mark.parametrize("key", OPEN)
def test_usage_counters_and_lookalikes_stay(key: str) -> None:
    """What only looks like a secret is left alone."""
    assert not is_secret_key(key)


def test_only_text_keys_can_be_secret() -> None:
    """Numbers and bytes are no names."""
    assert not is_secret_key(1)
    assert not is_secret_key(None)
    assert not is_secret_key(b"token")


def test_redact_walks_containers_and_leaves_the_original() -> None:
    """Secrets are masked at any depth in a copy; an absent secret stays absent."""
    value = {"a": [{"token": "x", "total_tokens": 3}, ({"password": None},)], "b": 1}

    assert redact(value) == {"a": [{"token": MASK, "total_tokens": 3}, [{"password": None}]], "b": 1}
    assert value["a"][0]["token"] == "x"  # type: ignore[index]


def test_redact_survives_a_cycle() -> None:
    """A container that holds itself is cut, not followed for ever."""
    value: dict[str, object] = {"token": "x"}
    value["self"] = value

    assert "'x'" not in repr(redact(value))


def test_applications_add_their_own(request: pytest.FixtureRequest) -> None:
    """Further names can be declared, also after clean events have been seen."""
    from flowdeck.events import redaction
    from flowdeck.events.encoding import encode

    before = set(redaction._NAMES)

    def restore() -> None:
        redaction._NAMES.clear()
        redaction._NAMES.update(before)
        redaction._endings = tuple(sorted({name[-3:] for name in before}))
        redaction._suffixes = tuple(sorted(before))
        redaction._clean.clear()

    request.addfinalizer(restore)
    assert b"4711" in encode({"kontonummer": "4711"})

    add_secret_keys("Konto-Nummer")

    assert b"4711" not in encode({"kontonummer": "4711"})
    with pytest.raises(ValueError, match="too short"):
        add_secret_keys("id")
