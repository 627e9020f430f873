"""NATS's keys and tokens against another implementation of them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats_jwt.nkeys_ext import keypair_from_pubkey
from nats_jwt.v2.claims import extract_payload_sig_from_jwt
from nats_jwt.v2.decoder import load_claims

from kalam_nats.access.nkeys_jwt import (
    ACCOUNT,
    REQUEST_AUDIENCE,
    SERVER,
    USER,
    SealingPair,
    SigningPair,
    Unreadable,
    new_seed,
    read_request,
    response_token,
    user_token,
)

ISSUER = SigningPair.new(ACCOUNT)
SERVER_PAIR = SigningPair.new(SERVER)
CONNECTION = SigningPair.new(USER).public


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def signed(claims: dict[str, Any], pair: SigningPair, header: dict[str, str] | None = None) -> bytes:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header or {"typ": "JWT", "alg": "ed25519-nkey"}, claims)
    ]
    said = b".".join(parts)
    return said + b"." + base64.urlsafe_b64encode(pair.sign(said)).rstrip(b"=")


def request_claims(**changed: Any) -> dict[str, Any]:
    nats = {
        "server_id": {"id": SERVER_PAIR.public, "name": "s"},
        "user_nkey": CONNECTION,
        "client_info": {"host": "127.0.0.1", "id": 7, "kind": "Client", "type": "nats"},
        "connect_opts": {"user": "ada", "pass": "secret", "lang": "python3"},
    }
    claims = {"iss": SERVER_PAIR.public, "aud": REQUEST_AUDIENCE, "jti": "1", "exp": 9, "nats": nats}
    return claims | changed


def granted(**more: Any) -> str:
    return user_token(
        ISSUER,
        connection=CONNECTION,
        name="ada",
        account="KALAM",
        publish={"allow": ["a.>"]},
        subscribe={"allow": ["b"], "deny": ["c"]},
        **more,
    )


@pytest.mark.parametrize("prefix", [ACCOUNT, USER, SERVER])
def test_the_other_implementation_reads_a_seed_and_has_the_same_public_key(prefix: int) -> None:
    pair = SigningPair.new(prefix)
    theirs = nkeys.from_seed(pair.seed.encode())
    assert theirs.public_key.rstrip(b"=").decode() == pair.public
    assert theirs.sign(b"x") == pair.sign(b"x")


def test_the_other_implementation_reads_a_users_token_and_its_signature() -> None:
    token = granted(expires_at=2_000_000_000)
    payload, signature = extract_payload_sig_from_jwt(token)
    assert keypair_from_pubkey(ISSUER.public.encode()).verify(payload, signature)
    version, claims = load_claims(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert version == 2
    assert (claims.iss, claims.sub, claims.name) == (ISSUER.public, CONNECTION, "ada")
    assert claims.nats.pub.allow == ["a.>"]
    assert (claims.nats.sub.allow, claims.nats.sub.deny) == (["b"], ["c"])


def test_a_token_ends_when_it_is_told_to_and_else_never() -> None:
    assert claims_of(granted(expires_at=2_000_000_000))["exp"] == 2_000_000_000
    assert "exp" not in claims_of(granted())
    assert abs(claims_of(granted())["iat"] - time.time()) < 60


@pytest.mark.parametrize("empty", [{}, {"allow": []}, {"deny": ["x"]}])
def test_no_token_has_an_empty_list_of_what_is_allowed(empty: dict[str, list[str]]) -> None:
    for publish, subscribe in ((empty, {"allow": ["a"]}), ({"allow": ["a"]}, empty)):
        with pytest.raises(ValueError, match="everything"):
            user_token(ISSUER, connection=CONNECTION, name="ada", account="KALAM", publish=publish, subscribe=subscribe)


def test_a_request_is_read() -> None:
    asked = read_request(signed(request_claims(), SERVER_PAIR))
    assert asked.request.connect_opts.password == "secret"
    assert asked.request.client_info.id == 7
    assert asked.expires_at == 9
    assert "secret" not in repr(asked)
    answer = claims_of(response_token(ISSUER, asked.request, error="no"))
    assert (answer["sub"], answer["aud"], answer["nats"]["error"]) == (CONNECTION, SERVER_PAIR.public, "no")
    assert "jwt" not in answer["nats"]


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"a.b",
        b"a.b.c",
        b"....",
        b"\xff.\xff.\xff",
        signed(request_claims(aud="another"), SERVER_PAIR),
        signed(request_claims(), SigningPair.new(SERVER)),
        signed(request_claims(iss=CONNECTION), SERVER_PAIR),
        signed(request_claims(iss=(other := SigningPair.new(SERVER)).public), other),
        signed(request_claims(nats={}), SERVER_PAIR),
        signed(request_claims(), SERVER_PAIR, {"typ": "JWT", "alg": "none"}),
        signed(request_claims(), SERVER_PAIR).rsplit(b".", 1)[0] + b".",
    ],
)
def test_what_no_server_signed_is_no_request(token: bytes) -> None:
    with pytest.raises(Unreadable):
        read_request(token)


def test_a_byte_that_was_changed_is_seen() -> None:
    token = bytearray(signed(request_claims(), SERVER_PAIR))
    token[len(token) // 2] ^= 1
    with pytest.raises(Unreadable):
        read_request(bytes(token))


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading(data: bytes) -> None:
    pair = SealingPair.new()
    with pytest.raises(Unreadable):
        read_request(data)
    with pytest.raises(Unreadable):
        pair.open(data, pair.public)


def test_a_sealed_message_is_for_its_recipient_alone() -> None:
    ours, theirs, strangers = SealingPair.new(), SealingPair.new(), SealingPair.new()
    sealed = theirs.seal(b"hello", ours.public)
    assert sealed.startswith(b"xkv1")
    assert ours.open(sealed, theirs.public) == b"hello"
    for pair, sender in ((strangers, theirs.public), (ours, strangers.public)):
        with pytest.raises(Unreadable):
            pair.open(sealed, sender)
    with pytest.raises(Unreadable):
        ours.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), theirs.public)
    with pytest.raises(Unreadable):
        ours.open(b"hello", theirs.public)


@pytest.mark.parametrize(
    "key",
    ["", "X", "é", "A" * 56, ISSUER.public, "0" * 56],
    ids=["none", "short", "no ASCII", "A", "another kind", "0"],
)
def test_a_wrong_key_of_a_sender_is_told(key: str) -> None:
    with pytest.raises(Unreadable):
        SealingPair.new().open(b"xkv1" + bytes(60), key)


@pytest.mark.parametrize(
    "seed",
    ["", "SUA", ISSUER.public, new_seed(USER)[:-1] + "1", "é" * 58],
    ids=["none", "short", "public", "damaged", "no ASCII"],
)
def test_a_wrong_seed_is_told(seed: str) -> None:
    with pytest.raises(Unreadable):
        SigningPair(seed)
