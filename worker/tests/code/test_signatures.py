"""Which signed statements are enough."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from airflow_remote_protocol.statements import Kind, Predicate, digest_of_keys, make
from airflow_remote_worker.code.signatures import Trusted, Verdict, judge, newest_keys

from testkit.signing import SigningKey, signed

TREE = "a" * 64
NOW = 1000.0
ANN, BOB, EVE = SigningKey(), SigningKey(), SigningKey()


def judged(*envelopes: str, keys: tuple[SigningKey, ...] = (ANN,), kind: Kind = Kind.BUNDLE, **trusted: Any) -> Verdict:
    return judge(envelopes, TREE, kind, Trusted([key.public for key in keys], **trusted), now=NOW)


def test_a_tree_that_a_trusted_key_has_signed_is_accepted() -> None:
    verdict = judged(ANN.sign(TREE, name="etl", version="v1"))
    assert verdict.refused == ""
    assert verdict.said is not None
    assert (verdict.said.name, verdict.said.version) == ("etl", "v1")


def test_a_tree_that_nobody_has_signed_is_refused_with_the_remedy() -> None:
    text = judged().refused
    assert "nobody has signed it" in text
    assert ANN.public.id[:16] in text
    assert f"airflow remote sign tree {TREE}" in text


def test_another_key_is_named() -> None:
    assert f"it is signed by the key {EVE.public.id[:16]}, which this worker does not trust" in judged(EVE.sign(TREE)).refused


def test_a_signature_under_the_name_of_a_trusted_key_is_not_enough() -> None:
    forged = json.loads(EVE.sign(TREE))
    forged["signatures"][0]["keyid"] = ANN.public.id
    assert judged(json.dumps(forged)).refused


def test_a_changed_payload_is_refused() -> None:
    envelope = json.loads(ANN.sign("b" * 64))
    payload = base64.b64decode(envelope["payload"]).replace(b"b" * 64, TREE.encode())
    envelope["payload"] = base64.b64encode(payload).decode()
    assert judged(json.dumps(envelope)).refused


@pytest.mark.parametrize("signature", ["", "AA==", "!", "A" * 88])
def test_a_malformed_signature_is_refused(signature: str) -> None:
    envelope = json.loads(ANN.sign(TREE))
    envelope["signatures"][0]["sig"] = signature
    assert judged(json.dumps(envelope)).refused


def test_a_statement_about_another_tree_or_of_another_kind_does_not_count() -> None:
    assert "nobody has signed it" in judged(ANN.sign("b" * 64)).refused
    assert "nobody has signed it" in judged(ANN.sign(TREE, Kind.RUNTIME, serial=1)).refused


def test_code_that_was_signed_for_one_bundle_is_not_that_of_another() -> None:
    trusted = Trusted([ANN.public])
    envelopes = [ANN.sign(TREE, name="etl")]
    assert judge(envelopes, TREE, Kind.BUNDLE, trusted, now=NOW, name="etl").refused == ""
    assert "is about 'etl', not about 'plant'" in judge(envelopes, TREE, Kind.BUNDLE, trusted, now=NOW, name="plant").refused


def test_an_expired_statement_does_not_count() -> None:
    assert "has expired" in judged(ANN.sign(TREE, expires=NOW)).refused
    assert judged(ANN.sign(TREE, expires=NOW + 1)).refused == ""


def test_as_many_keys_as_the_threshold_must_have_signed() -> None:
    both = (ANN, BOB)
    assert "signed by 1 of the 2 keys" in judged(ANN.sign(TREE), ANN.sign(TREE), keys=both, threshold=2).refused
    assert "signed by 1 of the 2 keys" in judged(ANN.sign(TREE), EVE.sign(TREE), keys=both, threshold=2).refused
    assert (
        "signed by 1 of the 2 keys" in judged(ANN.sign(TREE, name="a"), BOB.sign(TREE, name="b"), keys=both, threshold=2).refused
    )
    assert judged(ANN.sign(TREE), BOB.sign(TREE), keys=both, threshold=2).refused == ""
    together = signed(make(TREE, Predicate(Kind.BUNDLE, 1.0)), ANN, BOB)
    assert judged(together, keys=both, threshold=2).refused == ""
    assert judged(together, keys=(ANN, ANN), threshold=2).refused, "one key listed twice is one key"


def test_a_serial_below_the_highest_that_was_used_is_refused() -> None:
    floors = {"runtime default": 5}
    old, same = (ANN.sign(TREE, Kind.RUNTIME, name="default", serial=serial) for serial in (4, 5))
    assert "older ones are not taken again" in judged(old, kind=Kind.RUNTIME, floors=floors).refused
    assert judged(same, kind=Kind.RUNTIME, floors=floors).refused == ""


def test_an_old_bundle_may_run() -> None:
    assert judged(ANN.sign(TREE, name="etl"), floors={"bundle etl": 5}).refused == ""


def test_anything_is_survived() -> None:
    assert judged("", "null", "[" * 5000, "x" * 10_000, ANN.sign(TREE)).refused == ""


def lines(*keys: SigningKey) -> list[str]:
    return [key.public.line for key in keys]


def test_keys_are_replaced_by_those_that_they_have_signed_one_list_after_the_other() -> None:
    first, second = ANN.hand_over_to(BOB, serial=1), BOB.hand_over_to(EVE, serial=2)
    assert newest_keys([second, first], lines(ANN), 0, 1, now=NOW) == (lines(EVE), 2)
    assert newest_keys([second], lines(ANN), 0, 1, now=NOW) == (lines(ANN), 0)
    assert newest_keys([first], lines(BOB), 1, 1, now=NOW) == (lines(BOB), 1), "it was used before"
    assert newest_keys([EVE.hand_over_to(EVE, serial=3)], lines(ANN), 0, 1, now=NOW) == (lines(ANN), 0)


def test_new_keys_need_the_threshold_of_the_old_ones_and_must_be_enough_themselves() -> None:
    new = lines(BOB, EVE)
    one, two = (key.sign(digest_of_keys(new), Kind.KEYS, serial=1, keys=new) for key in (ANN, BOB))
    assert newest_keys([one], lines(ANN, BOB), 0, 2, now=NOW)[1] == 0
    assert newest_keys([one, two], lines(ANN, BOB), 0, 2, now=NOW) == (new, 1)
    for few in (lines(EVE), lines(EVE, EVE), ["no key", "neither"]):
        both = [key.sign(digest_of_keys(few), Kind.KEYS, serial=1, keys=few) for key in (ANN, BOB)]
        assert newest_keys(both, lines(ANN, BOB), 0, 2, now=NOW)[1] == 0


def test_new_keys_that_are_not_used_are_logged_with_key_and_remedy(caplog: pytest.LogCaptureFixture) -> None:
    forged = EVE.hand_over_to(EVE, serial=3)
    assert newest_keys([forged], lines(ANN), 0, 1, now=NOW) == (lines(ANN), 0)
    assert f"new keys (serial 3) are not used: the list of keys {digest_of_keys(lines(EVE))[:12]}" in caplog.text
    assert f"signed by the key {EVE.public.id[:16]}, which this worker does not trust" in caplog.text
    assert f"This worker trusts the keys {ANN.public.id[:16]}" in caplog.text
    assert "airflow remote sign keys" in caplog.text
    few = ANN.sign(digest_of_keys(lines(BOB)), Kind.KEYS, serial=4, keys=lines(BOB))
    also = EVE.sign(digest_of_keys(lines(BOB)), Kind.KEYS, serial=4, keys=lines(BOB))
    assert newest_keys([few, also], lines(ANN, EVE), 0, 2, now=NOW)[1] == 0
    assert "has not 2 different keys, which trust.threshold requires" in caplog.text


def test_a_list_of_keys_that_central_withholds_changes_nothing() -> None:
    assert newest_keys([], lines(ANN), 0, 1, now=NOW) == (lines(ANN), 0)


def test_keys_that_were_replaced_do_not_return_with_an_older_list() -> None:
    old, expired = (
        ANN.hand_over_to(ANN, serial=1),
        BOB.sign(digest_of_keys(lines(EVE)), Kind.KEYS, serial=3, keys=lines(EVE), expires=NOW),
    )
    assert newest_keys([old], lines(BOB), 2, 1, now=NOW) == (lines(BOB), 2)
    assert newest_keys([expired], lines(BOB), 2, 1, now=NOW) == (lines(BOB), 2)


@pytest.mark.parametrize(
    ("envelope", "kind", "trusted", "cause"),
    [
        pytest.param("", Kind.BUNDLE, {}, "it is no in-toto statement", id="no statement"),
        pytest.param(ANN.sign(TREE, expires=NOW), Kind.BUNDLE, {}, "has expired", id="expired"),
        pytest.param(EVE.sign(TREE), Kind.BUNDLE, {}, "which this worker does not trust", id="another key"),
        pytest.param(ANN.sign(TREE), Kind.BUNDLE, {"threshold": 2}, "1 of the 2 keys", id="too few keys"),
        pytest.param(
            ANN.sign(TREE, Kind.RELEASE, name="worker", serial=1),
            Kind.RELEASE,
            {"floors": {"release worker": 2}},
            "serial 2 was used here",
            id="older serial",
        ),
    ],
)
def test_every_refusal_names_cause_keys_and_remedy(envelope: str, kind: Kind, trusted: dict[str, Any], cause: str) -> None:
    text = judged(envelope, kind=kind, **trusted).refused
    assert cause in text
    assert f"This worker trusts the keys {ANN.public.id[:16]}" in text
    assert f"airflow remote sign tree {TREE}" in text


def test_the_library_is_loaded_only_when_something_signed_is_checked() -> None:
    probe = "import airflow_remote_worker.daemon, sys; print('securesystemslib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
