"""The golden file is what its script makes, and its numbers are those of the contract."""

from __future__ import annotations

import json

from tests.contract import make_vectors


def test_the_file_is_what_the_script_makes() -> None:
    assert make_vectors.PATH.read_text(encoding="utf-8") == make_vectors.text()


def test_a_token_has_the_lengths_of_the_contract() -> None:
    for join in json.loads(make_vectors.PATH.read_text(encoding="utf-8"))["joins"]:
        prefix, token_id, secret, rest = join["token"].split("_")
        assert (prefix, len(token_id), len(secret), len(rest), len(join["token"])) == ("dle", 10, 52, 59, 127)
