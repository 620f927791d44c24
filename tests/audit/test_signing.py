"""Signatures against tampered files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: signatures are NOT tested")
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from unlearn_hf.audit.signing import load_key, sign, verify

CONTENT = {"results": [], "fingerprints": {"weights": {"run": "w"}, "data": "d"}}


def pem(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(CONTENT))
    (tmp_path / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate()))
    sign(path, load_key(tmp_path / "key.pem"))
    return path


def test_a_signature_fits_what_was_signed(result: Path) -> None:
    assert verify(result, "w", "d") == json.loads(result.with_name("audit.json.sig").read_text())["public_key"]
    for weights, data, what in (("x", "d", "the model"), ("w", "x", "the data"), ("x", "x", "the model, the data")):
        with pytest.raises(ValueError, match=f"changed since it was signed: {what}"):
            verify(result, weights, data)
    result.write_text(json.dumps({**CONTENT, "results": [1]}))
    with pytest.raises(ValueError, match="changed since it was signed: the result"):
        verify(result, "w", "d")


@pytest.mark.parametrize("field", ["signature", "public_key", "weights", "data", "result_sha256"])
@pytest.mark.parametrize("how", ["other", "gone", "cut", "number"])
def test_a_damaged_signature(result: Path, field: str, how: str) -> None:
    file = result.with_name("audit.json.sig")
    signed = json.loads(file.read_text())
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    changed = {"other": other, "cut": signed[field][:-3], "number": 7}
    file.write_text(json.dumps({**signed, field: changed[how]} if how != "gone" else
                               {name: each for name, each in signed.items() if name != field}))  # fmt: skip
    with pytest.raises(ValueError, match="is damaged"):
        verify(result, "w", "d")


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_a_signature_that_is_none(result: Path, text: str) -> None:
    result.with_name("audit.json.sig").write_text(text)
    with pytest.raises(ValueError, match=r"audit\.json\.sig"):
        verify(result, "w", "d")


def test_keys_that_cannot_sign(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no key")
    (tmp_path / "other.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    for name, message in (
        ("absent.pem", "there is no file"),
        ("none.pem", "is no private key in PEM"),
        ("other.pem", "holds another kind of key"),
    ):
        with pytest.raises(ValueError, match=f"sign: .*{message}"):
            load_key(tmp_path / name)
